"""Roles of attention, and its rewrite with fewer heads or narrower ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from edgefolio_pruner.spatial.operators.operator import Operator
from edgefolio_pruner.spatial.roles import Attention
from edgefolio_pruner.spatial.structure_builder import Builder

__all__ = ["OPERATORS"]


def _attention(builder: Builder, node: fx.Node) -> None:
    query, key, value, mask, heads, scale, causal = node.args
    sources: tuple[Any, ...] = (query, key, value)
    if any(source not in builder.channels for source in sources):
        builder.set_barrier(node, "attention over constants")
        return
    if any(builder.channels[source].size != builder.channels[source].shape[-1] for source in sources):
        builder.set_barrier(node, "attention whose channels lie on several axes")
        return
    if isinstance(mask, fx.Node) and mask.op != "get_attr":
        shape = builder.shape(mask)
        if len(shape) > 2 and shape[-3] > 1:
            builder.set_barrier(node, "attention with a computed mask for each head")
            return
        if mask in builder.channels:
            builder.pin(builder.channels[mask], "mask of an attention")
    role = Attention(
        query=sources[0],
        key=sources[1],
        value=sources[2],
        mask=mask,  # type: ignore[arg-type]
        heads=heads,  # type: ignore[arg-type]
        scale=scale,  # type: ignore[arg-type]
        causal=bool(causal),
        averages=_averages(builder, mask),
    )
    builder.tie(builder.channels[role.query], builder.channels[role.key])
    builder.roles[node] = role
    builder.channels[node] = builder.channels[role.value]


def _averages(builder: Builder, mask: Any) -> bool:
    """Whether every query attends to something (under a causal mask each attends to the first key)."""
    if mask is None:
        return True
    if mask.op != "get_attr":
        return False
    held = builder.program.constant(mask)
    seen = held if held.dtype == torch.bool else torch.isfinite(held)
    whole = held.dtype == torch.bool or not bool((torch.isnan(held) | (held == torch.inf)).any())
    return whole and bool(seen.any(-1).all())


def _unfollowed(builder: Builder, node: fx.Node) -> None:
    builder.set_barrier(node, "attention whose heads cannot be followed")


OPERATORS = {
    "multi_head_attention": Operator(_attention),
    "scaled_dot_product_attention": Operator(_unfollowed),
}
