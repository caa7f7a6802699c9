"""Names of layers: as the network had them where the file tells, else after the nodes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from edgefolio_pruner.onnx_source.graph import Node

__all__ = ["Names", "layer_name"]

_PATH = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_PARTS = ("weight", "bias", "running_mean", "running_var", "gamma", "beta")
_LONGEST = 200


def layer_name(node: Node, weights: Iterable[str]) -> str:
    """The name of the layer that holds ``weights``: ``layer1.0.conv1`` of ``layer1.0.conv1.weight``.

    Else of the node's ``/layer1/layer1.0/conv1/Conv``, else the node's name.
    """
    for weight in weights:
        path, _, part = weight.rpartition(".")
        if path and part in _PARTS and _PATH.fullmatch(path) and len(path) <= _LONGEST:
            return path
    pieces = [piece for piece in node.name.split("/") if piece]
    if len(pieces) > 1 and pieces[-1].partition("_")[0] == node.operator.partition("+")[0]:
        pieces.pop()
    # torch names a part by its whole path again: layer1, layer1.0.
    kept = [
        piece
        for place, piece in enumerate(pieces)
        if place + 1 == len(pieces) or not pieces[place + 1].startswith(f"{piece}.")
    ]
    return re.sub(r"[^A-Za-z0-9_.]+", "_", ".".join(kept))[:_LONGEST].strip(".") or node.operator


class Names:
    """Paths of modules in a network, each given once."""

    def __init__(self, *, reserved: Collection[str]) -> None:
        self._reserved = frozenset(reserved)
        self._taken: set[str] = set()
        self._folders: set[str] = set()

    def path(self, name: str) -> str:
        """``name`` as a path that is free, none of whose parts is ``reserved``."""
        pieces = [f"{piece}_" if piece in self._reserved or not piece else piece for piece in name.split(".")]
        base = ".".join(pieces)
        # A layer has no layers in it: its own attributes are in the way.
        if any(folder in self._taken for folder in _folders(base)):
            base = "_".join(pieces)
        path, number = base, 1
        while self._is_taken(path):
            number += 1
            path = f"{base}_{number}"
        self._taken.add(path)
        self._folders.update(_folders(path))
        return path

    def _is_taken(self, path: str) -> bool:
        return path in self._taken or path in self._folders


def _folders(path: str) -> list[str]:
    pieces = path.split(".")
    return [".".join(pieces[:end]) for end in range(1, len(pieces))]
