"""What rooms say to each other: reports of agents and Jobs, names of files and pieces."""
