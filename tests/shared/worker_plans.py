"""Plans of splits that nobody made: any exchanges between any workers, and what each segment reads."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from edgefolio_worker.protocol.plan import WorkerPlan

SHAPES = {"input_shape": (4,), "output_shapes": ((3,), (2,))}


def document(workers: int, transfers: list[tuple[int, int, int]], *, depths: int, sums: tuple[bool, bool]) -> bytes:
    """The plan of ``workers`` with one segment before each of ``depths`` exchanges and one after the last.

    ``transfers`` are depth from 1 on, sender and receiver.
    """
    exchanges = [
        {
            "elements": 3,
            "depth": depth,
            "transfers": [
                {
                    "sender": sender,
                    "receiver": receiver,
                    "slots": [0, 1][: 1 + (sender + receiver) % 2],
                    "sent": f"x{depth}_to_{receiver}",
                    "received": f"x{depth}_from_{sender}",
                }
                for at, sender, receiver in transfers
                if at == depth
            ],
        }
        for depth in range(1, depths + 1)
    ]
    shards = [
        {
            "segments": [
                {"file": f"shard-{rank}/segment-{number}.onnx", "sha256": "0" * 64} for number in range(depths + 1)
            ],
        }
        for rank in range(workers)
    ]
    found: dict[str, Any] = {
        "workers": workers,
        "wire": "UInt8",
        "input": "input",
        "outputs": ["logits", "score"],
        "combination": ["Sum" if is_sum else "First" for is_sum in sums],
        "exchanges": exchanges,
        "shards": shards,
    }
    return json.dumps(found).encode()


def plans_of(raw: bytes) -> list[WorkerPlan]:
    """The plan for each of its workers."""
    workers = json.loads(raw)["workers"]
    return [WorkerPlan.read(raw, rank=rank, **SHAPES) for rank in range(workers)]


def reads(plan: WorkerPlan) -> tuple[tuple[str, ...], ...]:
    """What each segment reads: what the one before left, and what arrives at its depth."""
    found = [("input",)]
    for depth in range(1, len(plan.segments)):
        arriving = [each.received for each in plan.incoming if each.exchange == depth - 1]
        found.append((f"own{depth - 1}", *arriving))
    return tuple(found)


def gives(plan: WorkerPlan, segment: int) -> tuple[str, ...]:
    """What a segment leaves: for the next one, for others, and at the end the outputs."""
    if segment == len(plan.segments) - 1:
        return plan.outputs
    return (f"own{segment}", *(each.sent for each in plan.outgoing if each.exchange == segment))


@st.composite
def documents(draw: st.DrawFn, *, most_workers: int = 4) -> bytes:
    """Any plan of 2 or more workers."""
    workers = draw(st.integers(2, most_workers))
    depths = draw(st.integers(0, 3))
    every = [
        (depth, sender, receiver)
        for depth in range(1, depths + 1)
        for sender in range(workers)
        for receiver in range(workers)
        if sender != receiver
    ]
    chosen = draw(st.lists(st.sampled_from(every), unique=True)) if every else []
    return document(workers, chosen, depths=depths, sums=draw(st.tuples(st.booleans(), st.booleans())))
