"""Display of portfolios and endpoints: trees and tables for people, JSON for programs."""
