"""The commands ``edgefolio make``, ``shrink`` and ``report``."""
