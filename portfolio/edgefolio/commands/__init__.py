"""The ``edgefolio`` command: one small program that loads a room only when one of its commands is called."""
