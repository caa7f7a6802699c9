"""Custom resource definitions, generated from the specification (at build time only)."""
