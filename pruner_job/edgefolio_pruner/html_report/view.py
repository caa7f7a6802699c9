"""View model of the report page, ready to print."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml

from edgefolio.manifest import Manifest, Variant
from edgefolio.shown_text import shortened
from edgefolio.uris import redacted_document
from edgefolio_pruner.html_report.drawing import colour_of
from edgefolio_pruner.html_report.layers import precision_of

DASH = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True, kw_only=True)
class VariantRow:
    """One line of the table."""

    name: str
    colour: str
    precision: str
    method: str
    accuracy: str
    interval: str
    own_unit: str
    balanced: str
    weakest: str
    validation: str
    p50: str
    p95: str
    p99: str
    speed: str
    load: str
    size: str
    parameters: str
    macs: str
    memory: str
    peak: str
    digest: str
    version: int


@dataclass(frozen=True, kw_only=True)
class ProofRow:
    """Parity and exactness of one variant."""

    name: str
    colour: str
    parity: str
    agreement: str
    samples: int
    exactness64: str
    exactness32: str


@dataclass(frozen=True, kw_only=True)
class LineageNode:
    """A model and what was made from it."""

    name: str
    colour: str | None
    method: str
    settings: tuple[str, ...]
    children: tuple[LineageNode, ...]


def variant_rows(manifest: Manifest) -> list[VariantRow]:
    """Most accurate first; speed is against the slowest variant."""
    batch = manifest.request_batch_size
    medians = {variant.name: _median(variant, batch) for variant in manifest.single_node}
    slowest = max(medians.values())
    rows = []
    for variant in reversed(manifest.single_node):
        latency = variant.profiles[0].latency(batch) or variant.profiles[0].latencies[-1]
        profile, accuracy, classes = variant.profiles[0], variant.test_accuracy, variant.test_classes
        rows.append(
            VariantRow(
                name=variant.name,
                colour=colour_of(variant.rank - 1),
                precision=precision_of(variant),
                method=variant.method,
                accuracy=f"{accuracy.percent:.2f}",
                interval=f"{accuracy.low_percent:.2f}{DASH}{accuracy.high_percent:.2f}",
                own_unit=own_unit(variant),
                balanced=DASH if classes is None else f"{classes.balanced_accuracy_percent:.2f} %",
                weakest=""
                if classes is None
                else f"{shortened(manifest.labels[classes.lowest_class], 24)}: {classes.lowest_recall_percent:.1f} %",
                validation=f"{variant.validation_accuracy.percent:.2f}",
                p50=_milliseconds(latency.p50_milliseconds),
                p95=_milliseconds(latency.p95_milliseconds),
                p99=DASH if latency.p99_milliseconds is None else _milliseconds(latency.p99_milliseconds),
                speed=f"{slowest / medians[variant.name]:.1f}{TIMES}",
                load=_milliseconds(profile.load_milliseconds),
                size=byte_count(variant.size_bytes),
                parameters=count(variant.parameters),
                macs=count(variant.macs),
                memory=byte_count(profile.memory_steady_bytes),
                peak=byte_count(profile.memory_peak_bytes),
                digest=variant.sha256[:12],
                version=manifest.version_of(variant),
            )
        )
    return rows


def own_unit(variant: Variant) -> str:
    """The test score in the metric's own unit with its interval; nothing where it is a share."""
    score = variant.test_score
    return "" if score is None else f"{score.value:.4g} ({score.low:.4g}{DASH}{score.high:.4g})"


def score_sentence(manifest: Manifest) -> str:
    """What the manifest's scores are, where they are not accuracies of a classifier."""
    score = manifest.score
    if score is None:
        return ""
    direction = "higher is better" if score.better == "Higher" else "lower is better"
    if score.unit == "Percent":
        return f"The score of a variant is its {score.metric}, in percent."
    return (
        f"The score of a variant is its {score.metric} ({direction}), here in percent of the dense model's"
        f"{'' if score.better == 'Higher' else ' (of errors the inverse ratio)'}, at most 100; the figure itself "
        "stands below it."
    )


def proof_rows(manifest: Manifest) -> list[ProofRow]:
    """Most accurate first."""
    rows = []
    for variant in reversed(manifest.variants):
        parity, exactness = variant.parity, variant.exactness
        rows.append(
            ProofRow(
                name=variant.name,
                colour=colour_of(variant.rank - 1),
                parity=f"{parity.max_absolute_difference:.1e} of {parity.max_absolute_logit:.3g}",
                agreement=f"{parity.top1_agreement_percent:.2f} %",
                samples=parity.samples,
                exactness64=DASH if exactness is None else f"{exactness.float64_relative_difference:.1e}",
                exactness32=DASH
                if exactness is None
                else f"{exactness.float32_absolute_difference:.1e} (allowed {exactness.float32_bound:.1e})",
            )
        )
    return rows


def lineage(manifest: Manifest) -> list[LineageNode]:
    """The roots of the tree of parents; a parent that was not published is shown by its name alone."""
    published = {variant.name: variant for variant in manifest.variants}
    children: dict[str | None, list[str]] = {}
    for variant in reversed(manifest.variants):
        children.setdefault(variant.parent, []).append(variant.name)
    unpublished = [name for name in children if name is not None and name not in published]

    def node(name: str) -> LineageNode:
        variant = published.get(name)
        return LineageNode(
            name=name,
            colour=None if variant is None else colour_of(variant.rank - 1),
            method="not in the portfolio" if variant is None else variant.method,
            settings=() if variant is None else _settings(variant.settings),
            children=tuple(node(child) for child in children.get(name, [])),
        )

    return [node(name) for name in (*children.get(None, []), *unpublished)]


def headline(manifest: Manifest) -> list[tuple[str, str]]:
    """The figures at the top: value and what it is."""
    rows = variant_rows(manifest)
    accuracies = [variant.test_accuracy.percent for variant in manifest.single_node]
    batch = manifest.request_batch_size
    medians = [_median(variant, batch) for variant in manifest.single_node]
    sizes = [variant.size_bytes for variant in manifest.single_node]
    return [
        (str(len(rows)), "variants" if len(rows) > 1 else "variant"),
        (f"{max(accuracies):.1f} → {min(accuracies):.1f} %", f"test {manifest.score_word}, best to worst")
        if manifest.score is not None
        else (f"{max(accuracies):.1f} → {min(accuracies):.1f} %", "test accuracy, most to least accurate"),
        (f"{max(medians) / min(medians):.1f}{TIMES}", f"between slowest and fastest (batch of {batch})"),
        (f"{max(sizes) / min(sizes):.1f}{TIMES}", "between largest and smallest file"),
    ]


def specification_text(manifest: Manifest) -> str:
    """The specification that made the portfolio, as YAML."""
    specification = redacted_document(manifest.specification)
    text: str = yaml.safe_dump({"spec": specification}, sort_keys=False, width=100)
    return text


def readable_time(created: str) -> str:
    """``2026-01-31 12:00 UTC``; text that is no time stays as it is."""
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return created
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if moment.tzinfo else f"{moment:%Y-%m-%d %H:%M}"


def byte_count(number: int) -> str:
    """``1.2 MiB``."""
    return f"{number / 2**20:.1f} MiB" if number >= 2**20 else f"{number / 2**10:.1f} KiB"


def count(number: int) -> str:
    """``1.2 M``."""
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return str(number)


def _median(variant: Variant, batch: int) -> float:
    latency = variant.profiles[0].latency(batch) or variant.profiles[0].latencies[-1]
    return latency.p50_milliseconds


def _milliseconds(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.2f}"


def _settings(settings: Mapping[str, Any]) -> tuple[str, ...]:
    shown = []
    for name, value in settings.items():
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower()
        if isinstance(value, list):
            shown += [str(entry) for entry in value]
        elif isinstance(value, int) and not isinstance(value, bool):
            shown.append(f"{words} {value:,}")
        else:
            shown.append(f"{words} {value}")
    return tuple(shown)
