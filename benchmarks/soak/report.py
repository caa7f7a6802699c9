"""What a soak found: requests, times to converge, memory."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.soak.faults import Struck
from edge_client import Request

#: Requests on the node of a killed Triton may fail this long after the kill: it starts, loads, becomes ready.
EXCUSED_SECONDS = 30.0
#: Answers of one version to the same input may differ by this part: another batch, another processor.
RELATIVE_TOLERANCE = 1e-3


def excused(request: Request, node: str, struck: Sequence[Struck]) -> bool:
    """Whether the server of this request's node was killed shortly before, so that nobody could answer."""
    return any(
        fault.kind.ends_triton
        and fault.node == node
        and fault.began - 1 <= request.due <= fault.ended + EXCUSED_SECONDS
        for fault in struck
    )


def wrong_answers(requests: Sequence[Request]) -> int:
    """Answers that differ from what the same version said to the same input before."""
    by_version: dict[int, list[float]] = defaultdict(list)
    for request in requests:
        if request.version is not None and request.answer is not None:
            by_version[request.version].append(request.answer)
    wrong = 0
    for answers in by_version.values():
        usual = statistics.median(answers)
        wrong += sum(abs(answer - usual) > RELATIVE_TOLERANCE * max(1.0, abs(usual)) for answer in answers)
    return wrong


def summary(
    requests: Mapping[str, Sequence[Request]],
    struck: Sequence[Struck],
    memory: Mapping[str, tuple[int, int]],
    *,
    began: float,
    seconds: float,
) -> dict[str, Any]:
    """The results as JSON. ``memory`` holds bytes before and after by process."""
    every = [(node, request) for node, recorded in requests.items() for request in recorded]
    failed = [(node, request) for node, request in every if request.error is not None]
    inexcusable = [(node, request) for node, request in failed if not excused(request, node, struck)]
    kinds: dict[str, list[Struck]] = defaultdict(list)
    for fault in struck:
        kinds[fault.kind.name].append(fault)
    return {
        "seconds": round(seconds),
        "requests": len(every),
        "failedAtNodesThatWereUp": len(inexcusable),
        "failedWhereTritonWasKilled": len(failed) - len(inexcusable),
        "countedAs": f"a failure is excused on the node of a killed Triton, until {EXCUSED_SECONDS:.0f} s after it",
        "wrongAnswers": wrong_answers([request for _, request in every]),
        "faults": [{"fault": name, **_times(found)} for name, found in sorted(kinds.items())],
        "memory": {
            name: {"beforeMebibytes": before >> 20, "afterMebibytes": after >> 20}
            for name, (before, after) in sorted(memory.items())
        },
        "failures": [
            {"node": node, "atSeconds": round(request.due - began, 1), "error": request.error}
            for node, request in inexcusable[:50]
        ],
        "struck": [fault.document(since=began) for fault in struck],
    }


def _times(found: Sequence[Struck]) -> dict[str, Any]:
    times = sorted(fault.converged_at - fault.ended for fault in found if fault.converged_at is not None)
    return {
        "times": len(found),
        "converged": len(times),
        "p50Seconds": round(statistics.median(times), 1) if times else None,
        "p95Seconds": round(times[min(len(times) - 1, int(0.95 * len(times)))], 1) if times else None,
    }


def markdown(content: Mapping[str, Any]) -> str:
    """The results as a page."""
    lines = [
        "# Soak",
        "",
        f"`{content['command']}`, {content['seconds'] / 60:.0f} minutes, seed {content['seed']}, "
        f"commit {content['commit']}.",
        "",
        f"- requests: {content['requests']:,}",
        f"- failed at nodes that were up: {content['failedAtNodesThatWereUp']} ({content['countedAs']})",
        f"- failed where Triton was killed: {content['failedWhereTritonWasKilled']}",
        f"- wrong answers: {content['wrongAnswers']}",
        "",
        "| fault | times | converged | p50, s | p95, s |",
        "|---|---|---|---|---|",
    ]
    for entry in content["faults"]:
        lines.append(
            f"| {entry['fault']} | {entry['times']} | {entry['converged']} | {_shown(entry['p50Seconds'])} "
            f"| {_shown(entry['p95Seconds'])} |"
        )
    lines += ["", "| process | memory before, MiB | after, MiB |", "|---|---|---|"]
    for name, entry in content["memory"].items():
        lines.append(f"| {name} | {entry['beforeMebibytes']} | {entry['afterMebibytes']} |")
    return "\n".join(lines) + "\n"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
