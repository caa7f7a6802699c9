"""The canary of a split: its own answers are right, and the fallback's while its worker says that it is not linked."""

from __future__ import annotations

import time
from collections.abc import Callable

from edgefolio.manifest import Probe
from edgefolio_edge.models.variants import variant_of_version
from edgefolio_edge.triton.placement import Placement
from edgefolio_worker.records.status_file import WorkerStatus

__all__ = ["FALLBACK", "SPLIT", "after_first_answer"]

#: Who answered.
SPLIT, FALLBACK = "split", "fallback"
#: How often a split is asked that links, or loses a peer, between two requests; and seconds between.
_ATTEMPTS = 3
_PAUSE_SECONDS = 0.5


def after_first_answer(
    placement: Placement,
    wrong: str | None,
    *,
    ask: Callable[[Probe], str | None],
    status: Callable[[], WorkerStatus | None],
) -> tuple[str | None, str | None]:
    """What is wrong with the split after its first answer to its own probe, and who answered where nothing is.

    ``wrong`` is what was wrong with that; ``ask`` sends a probe and says what is; ``status`` is the worker's word.
    """
    for _ in range(_ATTEMPTS):
        if wrong is None:
            return None, SPLIT
        said = status()
        fallback = None if said is None else variant_of_version(placement.manifest, said.fallback)
        is_linked = said is None or said.is_linked
        if fallback is not None and not is_linked and ask(fallback.probe) is None:
            return None, FALLBACK
        time.sleep(_PAUSE_SECONDS)
        wrong = ask(placement.variant.probe)
    return wrong, SPLIT if wrong is None else None
