"""The demonstration of a split: two nodes on this machine answer as one, and one of them fails. `make demo-split`."""
