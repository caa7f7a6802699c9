"""One variant of an explanation, as table cells and as a JSON document."""

from __future__ import annotations

from edgefolio.decision.estimates.memory import needed_bytes
from edgefolio.decision.explain import ExplainedVariant


def headings(score_word: str = "accuracy") -> tuple[str, str, str]:
    """The headings of a variant's figures; ``score_word`` is what its score is called."""
    return (f"{score_word} %", "p95 ms", "busy %")


def figures(entry: ExplainedVariant) -> tuple[str, str, str]:
    """The cells under :func:`headings`; the latency "grows" where the queue would."""
    p95, utilization = entry.prediction.p95_milliseconds, entry.prediction.utilization
    return (
        f"{entry.profile.accuracy_percent:.2f}",
        "grows" if p95 is None else f"{p95:.1f}",
        "-" if utilization is None else f"{100 * utilization:.0f}",
    )


def variant_document(entry: ExplainedVariant) -> dict[str, object]:
    """The variant as a JSON document."""
    return {
        "name": entry.profile.name,
        "rank": entry.profile.rank,
        "accuracyPercent": entry.profile.accuracy_percent,
        "p95Milliseconds": entry.prediction.p95_milliseconds,
        "utilization": entry.prediction.utilization,
        "memoryBytes": needed_bytes(entry.profile),
        "meetsLatency": entry.prediction.meets_latency,
        "meetsAccuracy": entry.prediction.meets_accuracy,
        "fitsMemory": entry.prediction.fits_memory and entry.prediction.fits_memory_during_switch,
        "chosen": entry.chosen,
        "why": entry.why,
    }
