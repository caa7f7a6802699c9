"""Revisions of a portfolio: made by a Job or found in a repository, kept, rolled out."""
