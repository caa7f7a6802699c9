"""What a soak found: requests, times to converge, memory."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.soak.memory import Sample, growth
from benchmarks.soak.turns import Struck
from edge_client import Request

#: Requests on the node of a killed Triton may fail this long after the kill: it starts, loads, becomes ready.
EXCUSED_SECONDS = 30.0
#: Answers of one version to the same input may differ by this part: another batch, another processor.
RELATIVE_TOLERANCE = 1e-3

#: A request on its way across a cable that is cut is lost, and so are those until the client's library notices.
PARTED_SECONDS = 5.0

#: A request, and the node of the client that sent it.
Sent = tuple[str, Request]
#: The nodes that the connections of a node's client led to at a time; empty: unknown.
LedTo = Callable[[str, float], frozenset[str]]


def nowhere_known(_node: str, _at: float) -> frozenset[str]:
    """The record of a soak that looked at no connections."""
    return frozenset()


def excused(request: Request, node: str, struck: Sequence[Struck], led_to: LedTo = nowhere_known) -> bool:
    """Whether nobody could answer: the server of this request's node was killed shortly before, or the cable to the
    node that its connection led to was cut just then.
    """
    return any(
        fault.kind.ends_triton
        and fault.node == node
        and fault.began - 1 <= request.due <= fault.ended + EXCUSED_SECONDS
        for fault in struck
    ) or was_parted(request, node, struck, led_to)


def was_parted(request: Request, node: str, struck: Sequence[Struck], led_to: LedTo) -> bool:
    """Whether the client's connection led to another node, and one of the two was cut off just then."""
    for fault in struck:
        if fault.kind.parts and fault.began - 1 <= request.due <= fault.began + PARTED_SECONDS:
            led = led_to(node, min(request.due, fault.began))
            if led and node not in led and (fault.node == node or led == {fault.node}):
                return True
    return False


def failures_at_nodes_that_were_up(
    requests: Mapping[str, Sequence[Request]], struck: Sequence[Struck], led_to: LedTo = nowhere_known
) -> list[Sent]:
    """The requests that failed and are not excused."""
    return [
        (node, request)
        for node, recorded in requests.items()
        for request in recorded
        if request.error is not None and not excused(request, node, struck, led_to)
    ]


def wrong_answers(sent: Sequence[Sent]) -> list[Sent]:
    """Those whose answer differs from what the same version said to the same input before."""
    by_version: dict[int, list[Sent]] = defaultdict(list)
    for node, request in sent:
        if request.version is not None and request.answer is not None:
            by_version[request.version].append((node, request))
    wrong = []
    for answers in by_version.values():
        usual = statistics.median(request.answer or 0.0 for _, request in answers)
        allowed = RELATIVE_TOLERANCE * max(1.0, abs(usual))
        wrong += [(node, request) for node, request in answers if abs((request.answer or 0.0) - usual) > allowed]
    return wrong


def summary(
    requests: Mapping[str, Sequence[Request]],
    struck: Sequence[Struck],
    memory: Sequence[Sample],
    *,
    began: float,
    seconds: float,
    led_to: LedTo = nowhere_known,
) -> dict[str, Any]:
    """The results as JSON."""
    every = [(node, request) for node, recorded in requests.items() for request in recorded]
    failed = [(node, request) for node, request in every if request.error is not None]
    inexcusable = failures_at_nodes_that_were_up(requests, struck, led_to)
    parted = [entry for entry in failed if was_parted(entry[1], entry[0], struck, led_to)]
    wrong = wrong_answers(every)
    kinds: dict[str, list[Struck]] = defaultdict(list)
    for fault in struck:
        kinds[fault.kind.name].append(fault)
    return {
        "seconds": round(seconds),
        "requests": len(every),
        "failedAtNodesThatWereUp": len(inexcusable),
        "failedWhereTritonWasKilled": len(failed) - len(inexcusable) - len(parted),
        "failedOnTheWayToAnotherNode": len(parted),
        "countedAs": "each client asks on its own node, and every request of it counts, those of a node that is cut "
        "off or restarts its kubelet as well; a failure is excused on the node of a killed Triton, until "
        f"{EXCUSED_SECONDS:.0f} s after it, and where the client's connection led to another node (by the kernel's "
        f"table of connections) when one of the two was cut off, until {PARTED_SECONDS:.0f} s after that",
        "wrongAnswers": len(wrong),
        "convergedMeans": "the portfolio is Ready, every node serves the most accurate variant of the newest "
        "published revision, all pods of agents and operator are ready, and the Service routes to each node",
        "faults": [
            {
                "fault": name,
                "requests": len(_during(found, every)),
                "failed": len(_during(found, inexcusable)),
                "excused": len(_during(found, failed)) - len(_during(found, inexcusable)),
                "wrongAnswers": len(_during(found, wrong)),
                **_times(found),
            }
            for name, found in sorted(kinds.items())
        ],
        "memory": growth(memory),
        "failures": [
            {
                "node": node,
                "atSeconds": round(request.due - began, 1),
                "ledTo": sorted(led_to(node, request.due)),
                "error": request.error,
            }
            for node, request in inexcusable[:50]
        ],
        "struck": [fault.document(since=began) for fault in struck],
    }


def _during(found: Sequence[Struck], sent: Sequence[Sent]) -> list[Sent]:
    """What was sent from the beginning of one of these faults until everything had converged, or was given up."""
    spans = [(fault.began, fault.given_up_at if fault.converged_at is None else fault.converged_at) for fault in found]
    return [entry for entry in sent if any(began <= entry[1].due <= end for began, end in spans)]


def _times(found: Sequence[Struck]) -> dict[str, Any]:
    times = sorted(fault.converged_at - fault.ended for fault in found if fault.converged_at is not None)
    return {
        "times": len(found),
        "converged": len(times),
        "p50Seconds": round(statistics.median(times), 1) if times else None,
        "p95Seconds": round(times[min(len(times) - 1, int(0.95 * len(times)))], 1) if times else None,
    }


def is_sound(content: Mapping[str, Any]) -> bool:
    """Whether nothing failed that should not, and everything converged."""
    return (
        not content["failedAtNodesThatWereUp"]
        and not content["wrongAnswers"]
        and not content.get("endedBy")
        and bool(content.get("convergedAtEnd"))
        and all(entry["converged"] == entry["times"] for entry in content["faults"])
        and not any(entry.get("trouble") for entry in content["struck"])
    )


def markdown(content: Mapping[str, Any]) -> str:
    """The results as a page."""
    lines = [
        "# Soak",
        "",
        f"`{content['command']}`, {content['seconds'] / 60:.0f} minutes, seed {content['seed']}, "
        f"commit {content['commit']}, {content['nodes']} nodes on one machine of "
        f"{content['machine']['logicalCpus']} processors.",
        "",
        f"- requests: {content['requests']:,}",
        f"- failed at nodes that were up: {content['failedAtNodesThatWereUp']} ({content['countedAs']})",
        f"- failed where Triton was killed: {content['failedWhereTritonWasKilled']}",
        f"- failed on the way to a node that was cut off: {content['failedOnTheWayToAnotherNode']}",
        f"- wrong answers: {content['wrongAnswers']}",
        f"- converged means: {content['convergedMeans']}",
    ]
    if content.get("endedBy"):
        lines.append(f"- **the soak ended before its time: {content['endedBy']}**")
    lines += _failures(content)
    lines += [
        "",
        "Requests are those of all nodes from the beginning of a fault until everything had converged; times count "
        "from its end.",
        "",
        "| fault | times | converged | p50, s | p95, s | requests | failed | excused | wrong |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in content["faults"]:
        lines.append(
            f"| {entry['fault']} | {entry['times']} | {entry['converged']} | {_shown(entry['p50Seconds'])} "
            f"| {_shown(entry['p95Seconds'])} | {entry['requests']:,} | {entry['failed']} | {entry['excused']} "
            f"| {entry['wrongAnswers']} |"
        )
    lines += [
        "",
        "Resident memory in MiB, looked at whenever everything had converged. What was killed began anew: the last two "
        "columns are those of the process that lived longest.",
        "",
        "| process | first | last | most | processes | longest lived, s | grew |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, entry in content["memory"].items():
        lines.append(
            f"| {name} | {entry['firstMebibytes']} | {entry['lastMebibytes']} | {entry['mostMebibytes']} "
            f"| {entry['processes']} | {entry['longestLivedSeconds']} | {entry['longestLivedGrewMebibytes']} |"
        )
    return "\n".join(lines) + "\n"


def _failures(content: Mapping[str, Any]) -> list[str]:
    found = [
        f"- at {entry['atSeconds']:.0f} s {entry['fault']} ({entry['node']}): "
        + (entry.get("trouble") or "did not converge")
        for entry in content["struck"]
        if entry.get("trouble") or entry["toConvergeSeconds"] is None
    ]
    return ["", "What went wrong:", "", *found] if found else []


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
