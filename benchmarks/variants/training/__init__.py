"""Training of the networks until their validation accuracy stands still."""
