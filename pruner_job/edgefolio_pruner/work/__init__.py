"""The work directory of a pruning run: results by key, its copy in an object store, the draft that is published."""
