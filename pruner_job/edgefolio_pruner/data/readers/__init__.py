"""Readers of data: one for each form in which a URI can name it."""
