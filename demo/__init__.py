"""The demonstration: makes a portfolio of real data, serves it with Triton and keeps the right variant under load.

``python -m demo`` (or ``make demo``) uses the ``edgefolio`` command as any user would; what stands here is the load,
the disturbances, the measuring and the judgement. Everything runs on loopback and ends by itself.
"""
