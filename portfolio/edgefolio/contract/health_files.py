"""Names of the files through which an agent tells the kubelet how its Triton is.

The agent writes them into a volume that it shares with Triton's container, whose probes look for them. They lie in
memory: they outlive both containers, but not the node.
"""

from __future__ import annotations

#: A verified inference was answered, and nothing has spoken against it since. Triton's container is ready.
SERVING = "serving"
#: Only a restart helps. Triton's container is no longer alive.
RESTART = "restart"
#: A variant is on disk, verified: there is something that Triton can serve. The agent's container is started.
SYNCED = "synced"
