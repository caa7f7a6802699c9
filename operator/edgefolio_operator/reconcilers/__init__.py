"""The control loop: what is, compared with what should be, planned and written."""
