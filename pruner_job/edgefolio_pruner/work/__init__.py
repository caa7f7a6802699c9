"""The work directory of a making: results by key, its copy in an object store, the draft that is published."""
