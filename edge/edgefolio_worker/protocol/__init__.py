"""What workers of a split model say to each other, and when; pure: no sockets, no clock, no threads."""
