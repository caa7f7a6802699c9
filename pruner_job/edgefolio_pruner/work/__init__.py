"""The work directory of a making: results by key, its copy in an object store, what was decided to publish."""
