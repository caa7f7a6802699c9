"""What a process costs, and what it and the API server say of themselves."""

from __future__ import annotations

import os
import time
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.scale.installation import Installation
from prometheus_client.parser import text_string_to_metric_families

Counters = dict[tuple[str, ...], float]

_INTERESTING = ("edgefolio_", "apiserver_request_total{")
_WRITES = ("APPLY", "CREATE", "DELETE", "DELETECOLLECTION", "PATCH", "POST", "PUT", "UPDATE")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Everything that is counted, at this instant of the monotonic clock."""

    at: float
    processor_seconds: float
    resident_bytes: int
    peak_bytes: int
    cycles: float
    cycle_seconds: float
    errors: float
    #: Writes of the operator by kind.
    operator_writes: Counters
    #: Requests that the API server has answered, by verb and resource.
    requests: Counters


def sample(installation: Installation) -> Sample:
    """How things stand now."""
    process = installation.operator.pid
    own = _metrics(
        urllib.request.urlopen(f"http://127.0.0.1:{installation.metrics_port}/metrics", timeout=30).read().decode()
    )
    served = _metrics(installation.kubernetes.kubectl("get", "--raw", "/metrics"))
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    memory = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return Sample(
        at=time.monotonic(),
        processor_seconds=(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
        resident_bytes=1024 * int(memory["VmRSS"].split()[0]),
        peak_bytes=1024 * int(memory["VmHWM"].split()[0]),
        cycles=sum(_of(own, "edgefolio_reconcile_duration_seconds_count").values()),
        cycle_seconds=sum(_of(own, "edgefolio_reconcile_duration_seconds_sum").values()),
        errors=sum(_of(own, "edgefolio_reconcile_errors_total").values()),
        operator_writes=_of(own, "edgefolio_api_writes_total", "kind"),
        requests=_of(served, "apiserver_request_total", "verb", "resource"),
    )


def forget_peak(installation: Installation) -> None:
    """Let the highest resident size be found anew."""
    Path(f"/proc/{installation.operator.pid}/clear_refs").write_text("5")


def rates(before: Sample, after: Sample) -> dict[str, Any]:
    """What happened between two samples, per second."""
    seconds = after.at - before.at
    cycles = after.cycles - before.cycles
    own = _change(before.operator_writes, after.operator_writes)
    requests = _change(before.requests, after.requests)
    writes = {key: value for key, value in requests.items() if key[0] in _WRITES}
    endpoints = sum(value for key, value in writes.items() if key[1] == "modelendpoints")
    return {
        "seconds": round(seconds, 1),
        "processorMillisecondsPerSecond": round(
            1e3 * (after.processor_seconds - before.processor_seconds) / seconds, 2
        ),
        "residentMebibytes": round(after.resident_bytes / 2**20, 1),
        "peakMebibytes": round(after.peak_bytes / 2**20, 1),
        "cyclesPerSecond": round(cycles / seconds, 3),
        "cycleMilliseconds": round(1e3 * (after.cycle_seconds - before.cycle_seconds) / max(cycles, 1), 2),
        "errors": round(after.errors - before.errors),
        "operatorWritesPerSecond": round(sum(own.values()) / seconds, 3),
        "operatorWrites": {key[0]: round(value) for key, value in sorted(own.items()) if value},
        "allWritesPerSecond": round(sum(writes.values()) / seconds, 2),
        "endpointWritesPerSecond": round(endpoints / seconds, 2),
        "allRequestsPerSecond": round(sum(requests.values()) / seconds, 2),
    }


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, 95 % and the largest, in seconds."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("nothing was measured")
    return {
        "p50": round(ordered[len(ordered) // 2], 3),
        "p95": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 3),
        "last": round(ordered[-1], 3),
    }


def _metrics(text: str) -> list[tuple[str, dict[str, str], float]]:
    """Name, labels and value of every sample that is of interest: the API server tells ten thousands."""
    wanted = "\n".join(line for line in text.splitlines() if line.startswith(_INTERESTING))
    return [
        (entry.name, entry.labels, entry.value)
        for family in text_string_to_metric_families(wanted + "\n")
        for entry in family.samples
    ]


def _of(metrics: list[tuple[str, dict[str, str], float]], name: str, *labels: str) -> Counters:
    found: Counters = {}
    for entry, marks, value in metrics:
        if entry == name:
            key = tuple(marks.get(label, "") for label in labels)
            found[key] = found.get(key, 0.0) + value
    return found


def _change(before: Counters, after: Counters) -> Counters:
    return {key: value - before.get(key, 0.0) for key, value in after.items()}
