"""What one endpoint is: its objectives, overrides, observation, and the memory promised to it."""
