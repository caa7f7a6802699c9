"""Attention that is spelled as two products with a softmax between them, brought to the operator that means it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from edgefolio_pruner.spatial.graph.movements import Sizes, is_scaling
from edgefolio_pruner.spatial.graph.nodes import argument, insert, operator_name

__all__ = ["fuse_products"]

aten = torch.ops.aten


@dataclass(frozen=True)
class _Product:
    """The parts of softmax(scale * query @ key^T + mask) @ value; ``transposed_key`` is key^T."""

    query: fx.Node
    transposed_key: fx.Node
    value: fx.Node
    mask: fx.Node | None
    scale: float


def fuse_products(graph: fx.Graph, sizes: Sizes) -> None:
    """Replace each such product by ``scaled_dot_product_attention``."""
    for node in list(graph.nodes):
        found = _product(node)
        if found is not None:
            _fuse(node, found, sizes)
    graph.eliminate_dead_code()


def _product(node: fx.Node) -> _Product | None:
    if operator_name(node) not in ("matmul", "bmm"):
        return None
    weights, value = node.args[:2]
    if not isinstance(weights, fx.Node) or not isinstance(value, fx.Node):
        return None
    rank = weights.meta["val"].ndim
    if operator_name(weights) not in ("softmax", "_softmax") or argument(weights, "dim") % rank != rank - 1:
        return None
    scores, scale = weights, 1.0
    mask: fx.Node | None = None
    while True:
        source = scores.args[0]
        if not isinstance(source, fx.Node) or len(scores.users) != 1:
            return None
        scores = source
        if is_scaling(scores):
            number = scores.args[1]
            assert isinstance(number, (int, float))
            scale = scale * number if operator_name(scores) == "mul" else scale / number
        elif operator_name(scores) == "add" and mask is None and scale == 1.0 and argument(scores, "alpha") == 1:
            added = scores.args[1]
            if not isinstance(added, fx.Node) or not _is_added_alone(scores):
                return None
            mask = added
        else:
            break
    if operator_name(scores) not in ("matmul", "bmm") or len(scores.users) != 1:
        return None
    query, transposed_key = scores.args[:2]
    if not isinstance(query, fx.Node) or not isinstance(transposed_key, fx.Node):
        return None
    ranks = {source.meta["val"].ndim for source in (query, transposed_key, value, node)}
    return _Product(query, transposed_key, value, mask, scale) if ranks in ({3}, {4}) else None


def _fuse(node: fx.Node, product: _Product, sizes: Sizes) -> None:
    key = insert(node, aten.transpose.int, (product.transposed_key, -2, -1))
    given = [product.query, key, product.value]
    lead = sizes.shape(node)[0]
    heads = lead // sizes.batch if node.meta["val"].ndim == 3 and lead % sizes.batch == 0 else 1
    if heads > 1:
        if product.mask is not None and product.mask.meta["val"].ndim > 2:
            return
        # Heads that were counted with the batch get an axis of their own again.
        given = [insert(node, aten.reshape.default, (each, [-1, heads, *_inner(each)])) for each in given]
    arguments = (*given, product.mask, 0.0, False)
    result = insert(node, aten.scaled_dot_product_attention.default, arguments, scale=product.scale)
    if heads > 1:
        result = insert(node, aten.reshape.default, (result, [-1, *_inner(node)]))
    node.replace_all_uses_with(result)


def _is_added_alone(total: fx.Node) -> bool:
    """Whether a sum has shape and type of its first operand, and the second operand has that type too."""
    first, second = total.args[:2]
    assert isinstance(first, fx.Node)
    assert isinstance(second, fx.Node)
    value, before, added = total.meta["val"], first.meta["val"], second.meta["val"]
    return bool(value.shape == before.shape) and value.dtype == before.dtype == added.dtype


def _inner(node: fx.Node) -> list[int]:
    return [int(size) for size in node.meta["val"].shape[-2:]]
