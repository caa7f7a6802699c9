"""The control loop: actual and desired state are compared, planned and written."""
