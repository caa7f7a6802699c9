"""Splits of a revision in an explanation: options that name a link and a set of workers, and a line for each split."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgefolio.commands.explained_variants import variant_document
from edgefolio.decision.encoding import decoded
from edgefolio.decision.explain import ExplainedVariant, Explanation
from edgefolio.decision.types import WorkerSet
from edgefolio.errors import IntegrityError, UserError
from edgefolio.manifest import Manifest, Variant
from edgefolio.records.split_member import SplitLink, SplitMember
from edgefolio.shown_text import shown_rate
from edgefolio.untrusted.json_document import parse_json

_LINK = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([KMG])(?:,([0-9]{1,6}(?:\.[0-9]{1,6})?)ms)?")
_UNITS = {"K": 1e3, "M": 1e6, "G": 1e9}
_ROUND_TRIP = 0.3
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?")
_LARGEST_FILE = 1 << 20
NOT_OFFERED = "no set of workers is stated (--worker-set)"


@dataclass(frozen=True, kw_only=True)
class StatedSet:
    """The set of workers that somebody states, or ``observed`` one that an endpoint saw.

    ``factor`` is how many times slower its slowest worker computes, ``rate`` the requests a second of all its entries;
    ``None`` is as on this node, and as many at every entry.
    """

    workers: int
    factor: float | None = None
    rate: float | None = None
    observed: WorkerSet | None = None

    def of(self, variant: Variant, *, link: SplitLink | None, cpu_factor: float, rate: float) -> WorkerSet:
        """The set as one that serves ``variant``; without a ``link`` the one that the split was made for."""
        if self.observed is not None:
            return self.observed
        over = link or _split(variant).link
        return WorkerSet(
            variant=variant.name,
            rank=0,
            workers=self.workers,
            is_ready=True,
            age_seconds=0.0,
            round_trip_milliseconds=over.round_trip_milliseconds,
            bytes_per_second=over.bits_per_second / 8,
            compute_factor=self.factor or cpu_factor,
            arrival_rate=rate * self.workers if self.rate is None else self.rate,
        )


def parse_link(text: str, *, field: str = "--link") -> SplitLink:
    """The link that ``1G,0.3ms`` describes; without a round trip it is 0.3 ms."""
    found = _LINK.fullmatch(text)
    rate = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if found is None or rate <= 0:
        raise UserError(
            "this is no link: a number above 0 with K, M or G (bits a second), and perhaps a round trip in ms.",
            field=field,
            value=text,
            remedy="Write for example 1G,0.3ms or 100M,1ms.",
        )
    return SplitLink(bits_per_second=rate, round_trip_milliseconds=float(found[3]) if found[3] else _ROUND_TRIP)


def parse_worker_set(text: str, *, field: str = "--worker-set") -> StatedSet:
    """The set that ``2,factor=1.5,rate=80`` states, or the one in a JSON file (``workerSet`` of a recorded trace).

    Raises :class:`UserError`.
    """
    path = Path(text)
    if "/" in text or path.suffix == ".json":
        return _from_file(path, field=field)
    count, *figures = text.split(",")
    pairs = [figure.partition("=") for figure in figures]
    given = {name: value for name, _, value in pairs}
    numbers = {name: float(value) for name, value in given.items() if _NUMBER.fullmatch(value)}
    known = set(numbers) == set(given) <= {"factor", "rate"} and len(given) == len(pairs)
    if not known or not re.fullmatch("[2-8]", count) or numbers.get("factor", 1.0) <= 0:
        raise UserError(
            "this is no set of workers: how many, and perhaps factor= (times slower than profiled) and rate= (requests "
            "a second of all entries).",
            field=field,
            value=text,
            remedy="Write for example 2, or 2,factor=1.5,rate=80, or name a JSON file.",
        )
    return StatedSet(workers=int(count), factor=numbers.get("factor"), rate=numbers.get("rate"))


def split_lines(
    manifest: Manifest, explanations: dict[str, Explanation], *, stated: StatedSet | None, link: SplitLink | None
) -> list[str]:
    """A line for each split, most accurate first: the figures behind "split" or "not split"."""
    lines = []
    for variant in reversed(manifest.splits):
        entry = _entry(explanations[variant.name], variant.name)
        if entry is None:
            continue
        split, found = _split(variant), entry.split
        over = link or split.link
        assert found is not None
        network = "an unknown time" if found.network_milliseconds is None else f"{found.network_milliseconds:.2f} ms"
        p95 = entry.prediction.p95_milliseconds
        where = f"over {shown_rate(over.bits_per_second)} and {over.round_trip_milliseconds:g} ms"
        fallback = "nothing fits beside a shard" if found.fallback is None else found.fallback.clause
        lines.append(
            f"{variant.name}: {'split' if entry.chosen else 'not split'}: {_why(entry, stated=stated)}. "
            f"{variant.test_accuracy.percent:.2f} % on {split.workers} nodes, {found.compute_milliseconds:.2f} ms of "
            f"computing and {network} {'' if stated and stated.observed else f'{where} '}for {split.synchronisations} "
            f"exchanges and {(split.bytes_into_busiest + split.input_bytes) / 1024:.1f} KiB a sample: "
            f"p95 {'unknown' if p95 is None else f'{p95:.2f} ms'}; {fallback}; "
            f"{entry.profile.memory_peak_bytes / 2**20:.1f} MiB with it on each node."
        )
    return lines


def split_documents(
    manifest: Manifest,
    explanations: dict[str, Explanation],
    *,
    stated: StatedSet | None,
    link: SplitLink | None,
    cpu_factor: float,
) -> list[dict[str, object]]:
    """The same for programs, by rank."""
    found: list[dict[str, object]] = []
    for variant in manifest.splits:
        entry = _entry(explanations[variant.name], variant.name)
        if entry is None:
            continue
        split, figures = _split(variant), entry.split
        over = link or split.link
        assert figures is not None
        plan = figures.fallback
        found.append(
            {
                **variant_document(entry),
                "workers": split.workers,
                "layout": split.layout,
                "link": over.model_dump(mode="json", by_alias=True),
                "predictedMilliseconds": split.milliseconds_over(over, cpu_factor=cpu_factor),
                "computeMilliseconds": figures.compute_milliseconds,
                "networkMilliseconds": figures.network_milliseconds,
                "bytesIntoBusiest": split.bytes_into_busiest,
                "fallback": None
                if plan is None
                else {
                    "variant": plan.variant,
                    "abandonMilliseconds": plan.abandon_milliseconds,
                    "isInTime": plan.is_in_time,
                },
                "barred": None if entry.prediction.barred is None else entry.prediction.barred.value,
                "why": _why(entry, stated=stated),
            }
        )
    return found


def _from_file(path: Path, *, field: str) -> StatedSet:
    try:
        with path.open("rb") as stream:
            raw = stream.read(_LARGEST_FILE)
        found = decoded(WorkerSet, parse_json(raw, what="set of workers", location=str(path)))
    except (OSError, ValueError, IntegrityError) as error:
        raise UserError(
            f"the file holds no set of workers: {str(error).partition(chr(10))[0].rstrip('.')}.",
            field=field,
            value=str(path),
            remedy="It holds what `workerSet` of an observation in a recorded trace does; see docs/decision.md.",
        ) from error
    return StatedSet(workers=found.workers, observed=found)


def _why(entry: ExplainedVariant, *, stated: StatedSet | None) -> str:
    if stated is not None:
        return entry.why
    # What stands in its place was made up, so that figures can be shown.
    return "; ".join([NOT_OFFERED, *entry.prediction.verdict.split("; ")[1:]])


def _entry(explanation: Explanation, name: str) -> ExplainedVariant | None:
    return next((entry for entry in explanation.variants if entry.profile.name == name), None)


def _split(variant: Variant) -> SplitMember:
    assert variant.split is not None
    return variant.split
