"""How every specification model is read: scalar types, CEL rules, tolerance of newer versions, errors of users."""
