"""Goals, rows, and the results file with its page and plots."""
