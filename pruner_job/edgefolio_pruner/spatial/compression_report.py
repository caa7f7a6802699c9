"""Compression report: removed channels per layer, and why the rest stayed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from torch import fx

from edgefolio_pruner.spatial.layers import folded_columns
from edgefolio_pruner.spatial.passes.constant_propagation import Constancy
from edgefolio_pruner.spatial.passes.removal_plan import RemovalPlan
from edgefolio_pruner.spatial.roles import Contraction

__all__ = ["LayerChannels", "ReportedBarrier", "SpatialReport", "barriers", "layer_channels"]


@dataclass(frozen=True)
class LayerChannels:
    """Output channels of one layer.

    ``before`` = ``after`` + ``removed_zero`` (zero or unread) + ``folded_constant`` (a constant that biases
    took over) + ``merged_border`` (a constant that another channel stands for where zero padding shows).
    ``kept_because`` counts the reasons of the kept ones.
    """

    name: str
    before: int
    after: int
    removed_zero: int
    folded_constant: int
    merged_border: int
    kept_because: str


@dataclass(frozen=True)
class ReportedBarrier:
    """An operator whose channels all stay, with place and reason."""

    operator: str
    where: str
    reason: str


@dataclass(frozen=True)
class SpatialReport:
    """Channels per layer, barriers, and sizes: parameters are numbers in weights, MACs are per sample."""

    layers: tuple[LayerChannels, ...]
    barriers: tuple[ReportedBarrier, ...]
    parameters_before: int
    parameters_after: int
    macs_before: int
    macs_after: int

    @property
    def channels_removed(self) -> int:
        """Output channels removed from layers."""
        return sum(layer.before - layer.after for layer in self.layers)


def layer_channels(plan: RemovalPlan) -> tuple[LayerChannels, ...]:
    """One entry for each layer, in order of execution; call sites of one weight are one layer."""
    folded = np.zeros(plan.structure.count, dtype=bool)
    for node, role in plan.structure.contractions():
        read = plan.structure.channels[role.source].ravel()[role.columns]
        folded[read[folded_columns(plan, node, role) & plan.matrices[role].nonzero.any(axis=1)]] = True
    result: dict[str, LayerChannels] = {}
    for node, role in plan.structure.contractions():
        name = str(role.weight.target).removesuffix(".weight")
        if name not in result:
            result[name] = _layer(plan, node, role, name, folded)
    return tuple(result.values())


def _layer(plan: RemovalPlan, node: fx.Node, role: Contraction, name: str, folded: np.ndarray) -> LayerChannels:  # type: ignore[type-arg]
    channels = plan.structure.channels[node].ravel()
    removed = channels[~plan.keep[channels]]
    kept = plan.keep[channels]
    merged = plan.merged[removed]
    constant = folded[removed] & ~merged
    reasons: Counter[str] = Counter()
    codes = plan.constants.codes[node].ravel()
    stands_for = _representatives(plan)
    for slot in np.flatnonzero(kept).tolist():
        channel = int(channels[slot])
        if channel in plan.structure.pinned:
            reasons[plan.structure.pinned[channel]] += 1
        elif channel in stands_for:
            reasons["stands for constants"] += 1
        elif not plan.wanted[channel]:
            reasons["equal groups"] += 1
        elif codes[slot] == Constancy.LIVE:
            reasons["live"] += 1
        elif codes[slot] == Constancy.BORDER:
            reasons["border"] += 1
        else:
            reasons["live elsewhere" if plan.wanted[channel] else "equal groups"] += 1
    del role
    return LayerChannels(
        name=name,
        before=len(channels),
        after=int(kept.sum()),
        removed_zero=int(len(removed) - merged.sum() - constant.sum()),
        folded_constant=int(constant.sum()),
        merged_border=int(merged.sum()),
        kept_because=", ".join(f"{reason}: {count}" for reason, count in reasons.most_common()),
    )


def _representatives(plan: RemovalPlan) -> set[int]:
    result = set()
    for node, merges in plan.merges.items():
        role = plan.structure.roles[node]
        assert isinstance(role, Contraction)
        read = plan.structure.channels[role.source].ravel()[role.columns]
        result |= {int(read[merge.representative]) for merge in merges}
    return result


def barriers(plan: RemovalPlan) -> tuple[ReportedBarrier, ...]:
    """All barriers in order of execution."""
    return tuple(
        ReportedBarrier(operator=str(node.target), where=_where(node), reason=role.reason)
        for node, role in plan.structure.barriers()
    )


def _where(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(entry[0]) for entry in stack.values()]
    return next((path for path in reversed(paths) if path), node.name)
