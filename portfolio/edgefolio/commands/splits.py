"""Splits of a revision beside the variants that one server can serve, and the option that names a link."""

from __future__ import annotations

import re

from rich.table import Table
from rich.text import Text

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


def split_table(manifest: Manifest, *, link: SplitLink | None, cpu_factor: float) -> Table | None:
    """The splits, most accurate first, over ``link`` or each over its own; ``None`` where there is none."""
    if not manifest.splits:
        return None
    table = Table(title=f"Splits: {NOT_SERVED}", title_justify="left")
    table.add_column("split", overflow="fold")
    for heading in ("accuracy %", "nodes", "predicted ms", "KiB in", "memory MiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("link", overflow="fold")
    for variant in reversed(manifest.splits):
        split, profile = _split(variant.split), variant.profiles[0]
        over = link or split.link
        table.add_row(
            Text(variant.name),
            f"{variant.test_accuracy.percent:.2f}",
            str(split.workers),
            f"{split.milliseconds_over(over, cpu_factor=cpu_factor):.2f}",
            f"{split.bytes_into_busiest / 1024:.1f}",
            f"{max(profile.memory_peak_bytes, profile.memory_steady_bytes) / 2**20:.1f}",
            Text(f"{shown_rate(over.bits_per_second)}, {over.round_trip_milliseconds:g} ms"),
        )
    return table


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
