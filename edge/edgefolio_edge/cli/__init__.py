"""The commands ``edgefolio run``, ``serve`` and ``verify``."""
