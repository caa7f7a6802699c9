"""Readers of tables, archives and data sets, each by what a URI names."""
