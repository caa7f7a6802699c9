"""Triton on one machine: started from the PyPI wheel or attached to, and controlled over gRPC.

| module | purpose |
|---|---|
| ``wheel`` | finds the server inside the ``nvidia-pytriton`` wheel and lays out its backends |
| ``libpython`` | finds the shared Python library that the backend's stub needs |
| ``processes`` | processes and shared memory of servers that were started here |
| ``server`` | starts, adopts, attaches to and stops a server |
| ``client`` | the control client: load, unload, statistics, inference, with the key |
| ``host`` | a server of one's own or another's, as the agent has it |
| ``switcher`` | switches variants, with a canary |
| ``configuration`` | a model's configuration, generated from its verified manifest |
| ``backend/model.py`` | the Python-based ``onnxruntime`` backend, which checks the probe while it loads |
"""
