"""View model of the splits: what each costs over its link, and the network as a strip of exchanges."""

from __future__ import annotations

from dataclasses import dataclass

from edgefolio.manifest import Manifest, Variant
from edgefolio.records.split_member import SplitMember
from edgefolio.shown_text import shown_rate
from edgefolio_pruner.html_report.drawing import colour_of
from edgefolio_pruner.html_report.view import DASH, byte_count


@dataclass(frozen=True, kw_only=True)
class ExchangeBox:
    """One exchange, filled to the part of its dense float32 traffic that is still sent."""

    share: float
    title: str


@dataclass(frozen=True, kw_only=True)
class SplitRow:
    """One split: a line of the table, and its strip."""

    name: str
    colour: str
    layout: str
    shares: str
    accuracy: str
    interval: str
    waits: int
    sent: str
    dense: str
    weights: str
    compute: str
    own: str
    predicted: str
    link: str
    pays_from: str
    certificate: str
    boxes: tuple[ExchangeBox, ...]


def split_rows(manifest: Manifest) -> list[SplitRow]:
    """Most accurate first."""
    dense = max(variant.parameters for variant in manifest.single_node)
    return [_row(variant, variant.split, dense) for variant in reversed(manifest.splits) if variant.split is not None]


def _row(variant: Variant, split: SplitMember, dense_parameters: int) -> SplitRow:
    accuracy, certificate = variant.test_accuracy, split.certificate
    latency = variant.profiles[0].latencies[-1]
    sent = sum(sum(exchange.bytes_into) for exchange in split.exchanges)
    return SplitRow(
        name=variant.name,
        colour=colour_of(variant.rank - 1),
        layout=split.shown_layout,
        shares=", ".join(f"{share} %" for share in split.shares_percent),
        accuracy=f"{accuracy.percent:.2f}",
        interval=f"{accuracy.low_percent:.2f}{DASH}{accuracy.high_percent:.2f}",
        waits=split.synchronisations,
        sent=byte_count(sent),
        dense=byte_count(split.dense_bytes),
        weights=f"{100 * variant.parameters / max(1, dense_parameters):.0f} %",
        compute=f"{latency.p50_milliseconds:.3g} ms (batch of {latency.batch_size})",
        own=f"{split.own_milliseconds:.3g} ms",
        predicted=f"{split.predicted_milliseconds:.3g} ms",
        link=f"{shown_rate(split.link.bits_per_second)}, {split.link.round_trip_milliseconds:g} ms",
        pays_from=shown_rate(split.least_bits_per_second),
        certificate=f"{certificate.certified_percent:.1f} % of {certificate.samples}",
        boxes=tuple(
            ExchangeBox(
                share=100 * sum(exchange.bytes_into) / max(1, sum(exchange.dense_bytes_into)),
                title=f"{exchange.place}: {byte_count(sum(exchange.bytes_into))} of "
                f"{byte_count(sum(exchange.dense_bytes_into))} a sample",
            )
            for exchange in split.exchanges
        ),
    )
