"""Channel rules of the ATen operators, and their rewrites with fewer channels."""
