"""Arrays as people store them, taken as the samples and targets of a task."""
