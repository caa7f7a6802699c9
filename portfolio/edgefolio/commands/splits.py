"""Splits of a revision beside the variants that one server can serve, and the option that names a link."""

from __future__ import annotations

import re

from edgefolio.errors import UserError
from edgefolio.manifest import Manifest
from edgefolio.records.split_member import SplitLink, SplitMember
from edgefolio.shown_text import shown_rate

_LINK = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([KMG])(?:,([0-9]{1,6}(?:\.[0-9]{1,6})?)ms)?")
_UNITS = {"K": 1e3, "M": 1e6, "G": 1e9}
_ROUND_TRIP = 0.3
NOT_SERVED = "several nodes would have to serve it together, which no server of this release does"


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


def split_lines(manifest: Manifest, *, link: SplitLink | None, cpu_factor: float) -> list[str]:
    """A line for each split, most accurate first, over ``link`` or its own."""
    lines = []
    for variant in reversed(manifest.splits):
        split, profile = _split(variant.split), variant.profiles[0]
        over = link or split.link
        lines.append(
            f"{variant.name}: {variant.test_accuracy.percent:.2f} % on {split.workers} nodes, predicted "
            f"{split.milliseconds_over(over, cpu_factor=cpu_factor):.2f} ms a sample over "
            f"{shown_rate(over.bits_per_second)} and {over.round_trip_milliseconds:g} ms, "
            f"{max(profile.memory_peak_bytes, profile.memory_steady_bytes) / 2**20:.1f} MiB each at most. "
            f"Not chosen: {NOT_SERVED}."
        )
    return lines


def split_documents(manifest: Manifest, *, link: SplitLink | None, cpu_factor: float) -> list[dict[str, object]]:
    """The same for programs, by rank."""
    found: list[dict[str, object]] = []
    for variant in manifest.splits:
        split, profile = _split(variant.split), variant.profiles[0]
        over = link or split.link
        found.append(
            {
                "name": variant.name,
                "rank": variant.rank,
                "workers": split.workers,
                "layout": split.layout,
                "accuracyPercent": variant.test_accuracy.percent,
                "link": over.model_dump(mode="json", by_alias=True),
                "predictedMilliseconds": split.milliseconds_over(over, cpu_factor=cpu_factor),
                "bytesIntoBusiest": split.bytes_into_busiest,
                "memoryBytes": max(profile.memory_peak_bytes, profile.memory_steady_bytes),
                "chosen": False,
                "why": NOT_SERVED,
            }
        )
    return found


def _split(split: SplitMember | None) -> SplitMember:
    assert split is not None
    return split
