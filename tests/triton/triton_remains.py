"""What a server left on the machine."""

from __future__ import annotations

from edgefolio_edge.triton.launcher.server import TritonServer
from edgefolio_edge.triton.processes import orphaned_stubs, shared_memory_of


def remains_of(server: TritonServer) -> tuple[str, ...]:
    """Remains of ``server``: its processes, shared memory and temporary directory; empty after it was stopped."""
    left = [str(path) for path in shared_memory_of(server.shared_memory_prefix)]
    left += [f"process {stub.pid}" for stub in orphaned_stubs(server.shared_memory_prefix)]
    if server.is_alive():
        left.append(f"process {server.identity.pid}")
    if server.runtime.exists():
        left.append(str(server.runtime))
    return tuple(left)
