"""The page of the times of a cluster. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def markdown(content: Mapping[str, Any]) -> str:
    """The page of the results."""
    where = content["machine"]
    lines = [
        "# Times on a cluster",
        "",
        f"`{content['command']}` at {content['commit']}: {where['processor']}, {where['logicalCpus']} processors, "
        f"Kubernetes {where['kubernetes']}. Three nodes share this machine, with everything else of the cluster; "
        f"`downAfterSeconds` is {content['downAfterSeconds']}. From the last act of the fault to the claim after the "
        "colon.",
        *([] if content.get("isWhole", True) else ["", "**The run ended before its time: rows are missing.**"]),
        "",
        "| what | seconds |",
        "|---|---|",
        *(f"| {name} | {_shown(values)} |" for name, values in content["seconds"].items()),
    ]
    return "\n".join(lines) + "\n"


def _shown(values: Sequence[float | None]) -> str:
    found = [value for value in values if value is not None]
    text = f"{statistics.median(found):.1f}" if found else ""
    if len(found) > 1:
        text += f" ({min(found):.1f} to {max(found):.1f})"
    missing = len(values) - len(found)
    return (
        f"{text}{'; ' if text and missing else ''}{f'{missing} of {len(values)} did not converge' if missing else ''}"
    )
