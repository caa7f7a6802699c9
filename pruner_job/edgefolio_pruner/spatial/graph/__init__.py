"""The captured program: ATen nodes, made functional, with shapes as integers."""
