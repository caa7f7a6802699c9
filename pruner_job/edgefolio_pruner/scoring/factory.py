"""A user's own metric: a callable that is given all outputs and targets, and returns one number."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from edgefolio.errors import UserError
from edgefolio_pruner.callables import imported, source_files
from edgefolio_pruner.scoring.metrics import GROUPS, LARGEST, Array
from edgefolio_pruner.scoring.score import Score, jackknife

FIELD = "spec.data.metric.factory"


class OwnMetric:
    """The metric ``module:callable``."""

    def __init__(self, name: str, *, higher_is_better: bool) -> None:
        """Raises :class:`UserError` if there is no such callable."""
        self._call: Callable[..., Any] = imported(name, field=FIELD, example="metrics:score")
        self._name = name
        self.higher_is_better = higher_is_better

    @cached_property
    def code_sha256(self) -> str:
        """Digest of the file that holds it and of those that it imports from there; of an installed one of its name."""
        digest = hashlib.sha256(self._name.encode())
        for path in sorted(source_files(self._name.partition(":")[0])):
            digest.update(f"{path.name}\n".encode())
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def score(self, outputs: Sequence[Array], targets: Array, *, samples: int) -> Score:
        """The score of all samples, with an interval where the callable also takes parts of them.

        Raises :class:`UserError` if it fails, or returns something else than a number.
        """
        value = self._value(outputs, targets)
        groups = np.arange(samples) % GROUPS
        without: list[float] = []
        try:
            for group in range(min(GROUPS, samples)):
                left = groups != group
                without.append(self._value([output[left] for output in outputs], targets[left]))
        except UserError:
            return Score(value=value, low=value, high=value)  # a part may lack what the metric needs
        return jackknife(value, without)

    def _value(self, outputs: Sequence[Array], targets: Array) -> float:
        tensors = tuple(torch.from_numpy(np.ascontiguousarray(output)) for output in outputs)
        try:
            with torch.inference_mode():
                found = self._call(
                    tensors[0] if len(tensors) == 1 else tensors, torch.from_numpy(np.ascontiguousarray(targets))
                )
            number = float(found)
        except Exception as error:  # it is the user's code
            raise UserError(
                f"the metric failed for {len(targets)} samples ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}).",
                field=FIELD,
                value=self._name,
                remedy="It is called with outputs and targets as tensors, samples on axis 0, and returns one number.",
            ) from error
        if not math.isfinite(number) or abs(number) > LARGEST:
            raise UserError(
                f"the metric gave {number:g} for {len(targets)} samples.",
                field=FIELD,
                value=self._name,
                remedy=f"Return a finite number of at most {LARGEST:g}, whatever the outputs are.",
            )
        return number
