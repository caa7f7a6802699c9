"""The Markdown table of the exactness benchmark."""

from __future__ import annotations

from collections import Counter
from typing import Any

_HEADER = """# Exactness over real architectures

Each net is made trained-looking (calibrated batch norms, no zero scales), channels of every kind are killed, and it is
captured and compressed. *Dead*: filters whose weights are zero, as made (what dead filters alone would allow).
*Removed*: output channels that the compiler took away; it can be more (their readers' unread channels go too) or less
(channels that streams, groups or barriers hold together). *float64* and *float32*: largest difference of the outputs
in units of the largest output; the float32 bound is 4 x the net's own float32 error, or 1e-4, absolute and in these
units, if that is more.
"""


def as_markdown(document: dict[str, Any]) -> str:
    """A summary, then one row per architecture."""
    records: list[dict[str, Any]] = document["architectures"]
    environment = document["environment"]
    outcomes = Counter(record["outcome"] for record in records)
    lines = [
        _HEADER,
        f"{len(records)} architectures: "
        + ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common()),
        "",
        "Machine: " + ", ".join(f"{name} {value}" for name, value in environment.items()) + ".",
        f"Made with `{document['command']}`.",
        "",
        "| architecture | size | parameters | outcome | dead | removed | parameters left | MACs left | float64 | "
        "float32 | capture + compress, s | barriers |",
        "|---|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    lines += map(_row, records)
    if document["notReached"]:
        lines += ["", f"Not reached in the time that this run had: {', '.join(document['notReached'])}."]
    return "\n".join(lines) + "\n"


def _row(record: dict[str, Any]) -> str:
    name, outcome = record["architecture"], record["outcome"]
    if "channels" not in record:
        parameters = f"{record['parameters'] / 1e6:.1f} M" if "parameters" in record else ""
        reason = str(record.get("reason", "")).replace("|", "/")
        return f"| {name} | {record.get('size', '')} | {parameters} | {outcome}: {reason} | | | | | | | | |"
    barriers = "; ".join(f"{operator} ({count})" for operator, count in record["barriers"].items())
    cells = [
        name,
        str(record["size"]),
        f"{record['parameters'] / 1e6:.1f} M",
        outcome,
        f"{100 * record['deadShare']:.0f} %",
        f"{100 * record['channelsRemoved'] / max(1, record['channels']):.0f} %",
        f"{100 * record['parametersAfter'] / record['parametersBefore']:.0f} %",
        f"{100 * record['macsAfter'] / record['macsBefore']:.0f} %",
        f"{record['float64Difference']:.0e}",
        f"{record['float32Difference']:.0e}",
        f"{record['captureSeconds'] + record['compressSeconds']:.1f}",
        barriers.replace("|", "/"),
    ]
    return "| " + " | ".join(cells) + " |"
