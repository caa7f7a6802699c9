"""What users read: conditions and Events."""
