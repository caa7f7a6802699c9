"""Samples that two parts of the data share: an accuracy on them says nothing of new ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from edgefolio.errors import UserError
from edgefolio_pruner.data.raw import TEST, TRAIN, VALIDATION, RawSplit
from edgefolio_pruner.data.stored import slices

#: A part of which more than this share is in the training part is no part of its own; few different samples (plain
#: colours, silence) may be the same by chance.
_MOST_SHARED, _FEW = 0.5, 16


def shared_samples(parts: Mapping[str, RawSplit], *, fields: Mapping[str, str], names: Mapping[str, str]) -> list[str]:
    """A note for each given part that shares samples with the training part.

    Raises :class:`UserError` for the field of a part that is mostly made of training samples.
    """
    others = [part for part in (VALIDATION, TEST) if part in parts]
    if TRAIN not in parts or not others:
        return []
    trained = set(_digests(parts[TRAIN]))
    notes = []
    for part in others:
        digests = _digests(parts[part])
        shared, total = sum(digest in trained for digest in digests), len(digests)
        if shared > _MOST_SHARED * total and len(trained & set(digests)) >= _FEW:
            raise UserError(
                f"{shared} of its {total} samples are training samples: accuracy on them says nothing of new ones.",
                field=fields[part],
                value=names.get(part),
                remedy=f"Name samples that nothing was trained on, or leave data.{part}URI out to hold some out.",
            )
        if shared:
            notes.append(f"{shared} of the {total} {part} samples are training samples as well")
    return notes


def _digests(split: RawSplit) -> list[bytes]:
    by_input = [
        [
            hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
            for piece in slices(given)
            for image in piece
        ]
        for given in split.inputs
    ]
    return [b"".join(digests) for digests in zip(*by_input, strict=True)]
