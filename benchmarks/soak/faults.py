"""The faults that a soak draws from, each with its undoing, on a real cluster."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from bed_faults import YEAR, full_disk, refusing_store, rotate_authority, stepped_clock
from edge_revisions import POISONED, publish_again, publish_poisoned
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
#: Corrections by a time server, and what a board without a battery makes of the year.
CLOCK_STEPS = (10.0, -30.0, 3600.0, -86_400.0, 20.0 * YEAR, -20.0 * YEAR)
_STEP_SECONDS = 6.0


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of fault. It lasts for ``seconds`` once it is made; one of 0 is over at once.

    ``ends_triton`` says that requests on its node may fail: the server that they ask is killed. ``parts`` says that
    those between its node and others may: the cable is cut.
    """

    name: str
    strike: Fault
    seconds: float = 0.0
    ends_triton: bool = False
    parts: bool = False


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


def _delete_pod(site: EdgeSite, node: str) -> None:
    site.kubernetes.kubectl("delete", "pod", site.pod_on(node)["metadata"]["name"], "--wait=false")


@contextmanager
def _deleted_pod(site: EdgeSite, node: str, _choice: random.Random) -> Iterator[None]:
    _delete_pod(site, node)
    yield


@contextmanager
def _poisoned_repository(site: EdgeSite, node: str, choice: random.Random) -> Iterator[None]:
    """Pointer, manifests and model files are exchanged, while a new pod on ``node`` needs them."""
    files = [path for path in sorted(site.bucket.rglob("*")) if path.suffix in (".json", ".onnx")]
    before = {path: path.read_bytes() for path in files}
    for path in files:
        path.write_bytes(choice.choice(POISONS))
    try:
        _delete_pod(site, node)
        yield
    finally:
        for path, content in before.items():
            path.write_bytes(content)


@contextmanager
def _poisoned_revision(site: EdgeSite, _node: str, choice: random.Random) -> Iterator[None]:
    """A new revision that nobody may serve, and then a good one."""
    publish_poisoned(site, choice.choice(POISONED))
    try:
        yield
    finally:
        publish_again(site)


@contextmanager
def _clock_steps(site: EdgeSite, node: str, choice: random.Random) -> Iterator[None]:
    steps = choice.sample(CLOCK_STEPS, 3)
    with stepped_clock(site.machine, node, steps, seconds=_STEP_SECONDS):
        yield


@contextmanager
def _full_disk(site: EdgeSite, node: str, choice: random.Random) -> Iterator[None]:
    """No room is left on ``node`` while its agent starts again, or a new pod has to fetch everything."""
    with full_disk(site.machine, node):
        if choice.random() < 0.5:
            site.kill(node, "agent")
        else:
            _delete_pod(site, node)
        yield


@contextmanager
def _refusing_store(site: EdgeSite, node: str, _choice: random.Random) -> Iterator[None]:
    """The store answers 503, while a new pod on ``node`` needs it."""
    with refusing_store():
        _delete_pod(site, node)
        yield


@contextmanager
def _rotated_authority(site: EdgeSite, _node: str, choice: random.Random) -> Iterator[None]:
    """Announced, as an administrator does it, or all at once."""
    announced = None if choice.random() < 0.5 else site.trusts
    rotate_authority(site.machine, announced=announced)
    yield


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
    Kind(name="authority of the API server rotated", strike=_rotated_authority),
    Kind(name="object store frozen", strike=_frozen("s3"), seconds=25),
    Kind(name="object store answers 503", strike=_refusing_store, seconds=20),
    Kind(name="metrics-server frozen", strike=_frozen("metrics-server"), seconds=25),
    Kind(name="node cut off", strike=_cut_off, seconds=25, parts=True),
    Kind(name="node lost", strike=_cut_off, seconds=70, parts=True),
    Kind(name="clock of a node stepped", strike=_clock_steps, seconds=_STEP_SECONDS),
    Kind(name="disk of a node full", strike=_full_disk, seconds=25),
    Kind(name="busy neighbour", strike=_neighbour, seconds=30),
    Kind(name="pod deleted", strike=_deleted_pod),
    Kind(name="repository poisoned", strike=_poisoned_repository, seconds=20),
    Kind(name="revision poisoned", strike=_poisoned_revision, seconds=40),
    Kind(name="variant pinned", strike=_pinned, seconds=15),
)
