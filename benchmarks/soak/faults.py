"""The faults that a soak draws from, each with its undoing, on a real cluster."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from edge_site import SYSTEM, EdgeSite

#: A fault lasts while the block does. ``node`` is the one it strikes, if it strikes one.
Fault = Callable[[EdgeSite, str, random.Random], AbstractContextManager[None]]

#: What is written in place of published documents: none of it may be taken.
POISONS: tuple[bytes, ...] = (
    b"",
    b"null",
    b"[" * 100_000,
    b'{"schemaVersion": "edgefolio.dev/pointer/v1"}',
    b'{"schemaVersion": "edgefolio.dev/manifest/v1", "model": "\\ud800"}',
    b'{"revision": ' + b"9" * 400 + b"}",
    bytes(range(256)) * 64,
)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of fault. It lasts for ``seconds``; one of 0 is over at once.

    ``ends_triton`` says that requests on its node may fail: the server that they ask is killed.
    """

    name: str
    strike: Fault
    seconds: float = 0.0
    ends_triton: bool = False


@contextmanager
def _killed(site: EdgeSite, node: str, container: str) -> Iterator[None]:
    site.kill(node, container)
    yield


@contextmanager
def _killed_operator(site: EdgeSite, _node: str, _choice: random.Random) -> Iterator[None]:
    selector = ("-l", "app.kubernetes.io/component=operator")
    site.kubernetes.within(SYSTEM).kubectl("delete", "pod", *selector, "--grace-period=0", "--force", "--wait=false")
    yield


@contextmanager
def _restarted(site: EdgeSite, node: str, program: str) -> Iterator[None]:
    site.machine.restart(node, program)
    yield


@contextmanager
def _cut_off(site: EdgeSite, node: str, _choice: random.Random) -> Iterator[None]:
    site.machine.cut(node)
    try:
        yield
    finally:
        site.machine.heal(node)


@contextmanager
def _neighbour(site: EdgeSite, node: str, _choice: random.Random) -> Iterator[None]:
    name = site.start_hog(node)
    try:
        yield
    finally:
        site.delete_pod(name)


@contextmanager
def _deleted_pod(site: EdgeSite, node: str, _choice: random.Random) -> Iterator[None]:
    site.kubernetes.kubectl("delete", "pod", site.pod_on(node)["metadata"]["name"], "--wait=false")
    yield


@contextmanager
def _poisoned(site: EdgeSite, node: str, choice: random.Random) -> Iterator[None]:
    """Pointer, manifests and model files are exchanged, while a new pod on ``node`` needs them."""
    files = [path for path in sorted(site.bucket.rglob("*")) if path.suffix in (".json", ".onnx")]
    before = {path: path.read_bytes() for path in files}
    for path in files:
        path.write_bytes(choice.choice(POISONS))
    try:
        site.kubernetes.kubectl("delete", "pod", site.pod_on(node)["metadata"]["name"], "--wait=false")
        yield
    finally:
        for path, content in before.items():
            path.write_bytes(content)


@contextmanager
def _pinned(site: EdgeSite, node: str, choice: random.Random) -> Iterator[None]:
    """Not a fault, but what people do meanwhile: a variant is pinned and freed."""
    pod = site.pod_on(node)["metadata"]["name"]
    variant = choice.choice([str(entry["name"]) for entry in site.variants()])
    site.kubernetes.kubectl("annotate", "--overwrite", "pod", pod, f"edgefolio.dev/pin-variant={variant}")
    try:
        yield
    finally:
        with contextlib.suppress(AssertionError):  # the pod may be another by now
            site.kubernetes.kubectl("annotate", "pod", pod, "edgefolio.dev/pin-variant-")


def _container(name: str) -> Fault:
    return lambda site, node, _choice: _killed(site, node, name)


def _frozen(program: str) -> Fault:
    return lambda site, _node, _choice: site.machine.frozen(program)


def _program(name: str) -> Fault:
    return lambda site, node, _choice: _restarted(site, node, name)


KINDS: tuple[Kind, ...] = (
    Kind(name="Triton killed", strike=_container("triton"), ends_triton=True),
    Kind(name="agent killed", strike=_container("agent")),
    Kind(name="operator killed", strike=_killed_operator),
    Kind(name="kubelet restarted", strike=_program("kubelet")),
    Kind(name="containerd restarted", strike=_program("containerd")),
    Kind(name="API server frozen", strike=_frozen("kube-apiserver"), seconds=25),
    Kind(name="object store frozen", strike=_frozen("s3"), seconds=25),
    Kind(name="metrics-server frozen", strike=_frozen("metrics-server"), seconds=25),
    Kind(name="node cut off", strike=_cut_off, seconds=50),
    Kind(name="busy neighbour", strike=_neighbour, seconds=30),
    Kind(name="pod deleted", strike=_deleted_pod),
    Kind(name="repository poisoned", strike=_poisoned, seconds=20),
    Kind(name="variant pinned", strike=_pinned, seconds=15),
)


_NOTICED_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class Struck:
    """One fault that was made; times in seconds since the epoch, ``converged_at`` ``None`` if it did not."""

    kind: Kind
    node: str
    began: float
    ended: float
    converged_at: float | None

    def document(self, *, since: float) -> Mapping[str, object]:
        """As it stands in the results; ``since`` is the start of the soak."""
        return {
            "fault": self.kind.name,
            "node": self.node,
            "atSeconds": round(self.began - since, 1),
            "lastedSeconds": round(self.ended - self.began, 1),
            "toConvergeSeconds": None if self.converged_at is None else round(self.converged_at - self.ended, 1),
        }


def strike(
    kind: Kind, site: EdgeSite, node: str, choice: random.Random, *, converged: Callable[[], bool], longest: float
) -> Struck:
    """Make a fault, end it, and wait until ``converged``, for at most ``longest`` seconds."""
    began = time.time()
    with kind.strike(site, node, choice):
        time.sleep(kind.seconds)
    ended = time.time()
    # What is killed is seen to be gone only after a while.
    time.sleep(_NOTICED_SECONDS)
    while time.time() < ended + longest:
        with contextlib.suppress(AssertionError, OSError):  # an API server that was just frozen
            if converged():
                return Struck(kind=kind, node=node, began=began, ended=ended, converged_at=time.time())
        time.sleep(0.5)
    return Struck(kind=kind, node=node, began=began, ended=ended, converged_at=None)
