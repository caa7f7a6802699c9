"""Order of the classes: as the user gives it, as the model brings it, natural, or as text.

The order says which output of the network belongs to which class: a head that was trained in another order answers
wrongly for every class.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from edgefolio.errors import UserError
from edgefolio.shown_text import shortened
from edgefolio_pruner.data.raw import RawData

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class ClassOrder:
    """``names`` are all classes in the order of the outputs as the user gives them, ``model_names`` as the model does.

    ``by`` orders the names of the data where neither is there.
    """

    names: tuple[str, ...] = ()
    by: Literal["Text", "Natural"] = "Text"
    model_names: tuple[str, ...] = ()


def natural(name: str) -> tuple[tuple[int, int, str, str], ...]:
    """Sort key in which ``class10`` comes after ``class9``, whatever the number of digits."""
    return tuple(_natural_piece(piece) for piece in re.split(r"([0-9]+)", name))


def _natural_piece(piece: str) -> tuple[int, int, str, str]:
    if not (piece.isdecimal() and piece.isascii()):
        return 1, 0, piece, ""
    # Python refuses to make a number of 4301 digits: of two without leading zeros, the longer one is larger.
    digits = piece.lstrip("0")
    return 0, len(digits), digits, piece


def class_names_of_model(module: Any) -> tuple[str, ...]:
    """The classes in the order of the outputs, where the model brings them; else none.

    As ``class_names`` or ``classes``, as ``config.id2label`` (Hugging Face), or as ``label_names`` of timm's
    ``pretrained_cfg``.
    """
    labels = getattr(getattr(module, "config", None), "id2label", None)
    own = getattr(module, "pretrained_cfg", None)
    candidates: list[Any] = [getattr(module, "class_names", None), getattr(module, "classes", None)]
    if isinstance(labels, dict):
        candidates.append([labels.get(number, labels.get(str(number))) for number in range(len(labels))])
    if isinstance(own, dict):
        candidates.append(own.get("label_names"))
    for names in candidates:
        if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
            found = tuple(names)
            if len(set(found)) == len(found):
                return found
    return ()


def in_order(data: RawData, order: ClassOrder, *, field: str, uri: str) -> RawData:
    """``data`` with its classes in ``order``. Raises :class:`UserError` for ``field`` if a class is not in it."""
    if order.names:
        missing = [name for name in data.class_names if name not in order.names] if data.has_names else []
        if missing:
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            raise UserError(
                f"the data has classes that are not in the list: "
                f"{', '.join(repr(shortened(name, 60)) for name in missing[:_SHOWN])}{more}.",
                field=f"{field}.classNames",
                value=uri,
                remedy="Name every class of the data, spelt as there, in the order of the network's outputs.",
            )
        if not data.has_names and len(data.class_names) > len(order.names):
            raise UserError(
                f"there are {len(order.names)} names, but labels up to {len(data.class_names) - 1}.",
                field=f"{field}.classNames",
                value=uri,
                remedy="Name every class, in the order of the labels.",
            )
        return _renumbered(data, order.names)
    if data.has_names and set(data.class_names) <= set(order.model_names):
        return _renumbered(data, order.model_names)
    if order.by == "Natural":
        return _renumbered(data, tuple(sorted(data.class_names, key=natural)))
    return data


def names_of_outputs(data: RawData, order: ClassOrder, *, field: str, uri: str) -> tuple[str, ...]:
    """Names of labels, or of the classes of masks, as the user gives them. Raises :class:`UserError` for ``field``."""
    if not order.names:
        return data.class_names
    if len(order.names) < len(data.class_names) or not data.class_names:
        raise UserError(
            f"there are {len(order.names)} names, but the targets have {len(data.class_names)} classes or labels.",
            field=f"{field}.classNames",
            value=uri,
            remedy="Name all of them, in the order of the network's outputs, or leave it out.",
        )
    return order.names


def _renumbered(data: RawData, names: Sequence[str]) -> RawData:
    if not data.has_names or data.class_names == tuple(names):
        return replace(data, class_names=tuple(names), has_names=True)
    number = {name: place for place, name in enumerate(names)}
    table = np.array([number[name] for name in data.class_names], dtype=np.int64)
    parts = {part: replace(split, labels=table[split.labels]) for part, split in data.parts.items()}
    return replace(data, parts=parts, class_names=tuple(names))
