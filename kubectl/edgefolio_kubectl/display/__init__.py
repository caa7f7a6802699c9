"""How portfolios and endpoints are shown: trees and tables for people, documents for programs."""
