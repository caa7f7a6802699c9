"""Which fault strikes where, drawn from a seed, and how one of them is made, ended and waited for."""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import psutil
from benchmarks.soak.faults import KINDS, Kind
from edge_site import EdgeSite

from edgefolio.errors import EdgefolioError

#: What a command or a look at a cluster in trouble raises.
TROUBLE = (
    AssertionError,
    OSError,
    subprocess.SubprocessError,
    StopIteration,
    ValueError,
    LookupError,
    EdgefolioError,
    psutil.Error,
)
#: What is killed is seen to be gone only after a while.
_NOTICED_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One fault to make; ``seed`` is that of whatever it draws itself."""

    kind: Kind
    node: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Struck:
    """One fault that was made; times in seconds since the epoch, ``converged_at`` ``None`` if it did not.

    ``given_up_at``: then the next fault was due all the same. ``trouble``: why it could not be made or ended properly.
    """

    kind: Kind
    node: str
    began: float
    ended: float
    converged_at: float | None
    given_up_at: float = 0.0
    trouble: str = ""

    def document(self, *, since: float) -> Mapping[str, object]:
        """As it stands in the results; ``since`` is the start of the soak."""
        document: dict[str, object] = {
            "fault": self.kind.name,
            "node": self.node,
            "atSeconds": round(self.began - since, 1),
            "lastedSeconds": round(self.ended - self.began, 1),
            "toConvergeSeconds": None if self.converged_at is None else round(self.converged_at - self.ended, 1),
        }
        return {**document, "trouble": self.trouble} if self.trouble else document


def turns(seed: int, nodes: Sequence[str], kinds: Sequence[Kind] = KINDS) -> Iterator[Turn]:
    """Faults without end: every kind once, in random order, before one comes again. Equal seeds give equal turns."""
    choice = random.Random(seed)
    while True:
        for kind in choice.sample(kinds, len(kinds)):
            yield Turn(kind=kind, node=choice.choice(nodes), seed=choice.getrandbits(32))


def strike(turn: Turn, site: EdgeSite, *, converged: Callable[[], bool], longest: float) -> Struck:
    """Make a fault, end it, and wait until ``converged``, for at most ``longest`` seconds."""
    began, trouble = time.time(), ""
    try:
        with turn.kind.strike(site, turn.node, random.Random(turn.seed)):
            time.sleep(turn.kind.seconds)
    except TROUBLE as error:
        trouble = f"{type(error).__name__}: {error}"[:500]
    ended = time.time()
    time.sleep(_NOTICED_SECONDS)
    converged_at: float | None = None
    while converged_at is None and time.time() < ended + longest:
        with contextlib.suppress(*TROUBLE):  # an API server that was just frozen
            if converged():
                converged_at = time.time()
                break
        time.sleep(0.5)
    return Struck(
        kind=turn.kind,
        node=turn.node,
        began=began,
        ended=ended,
        converged_at=converged_at,
        given_up_at=time.time(),
        trouble=trouble,
    )
