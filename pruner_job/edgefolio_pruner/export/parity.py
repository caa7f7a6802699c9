"""Parity of an ONNX file with its torch module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgefolio_pruner.export.evaluation_mode import evaluating, flat_outputs
from edgefolio_pruner.profiling.session import open_session


@dataclass(frozen=True)
class Parity:
    """How far an ONNX file's outputs are from its torch module's.

    ``max_abs_difference`` and ``max_abs_logit`` are over all samples and all outputs (the first is of the difference,
    the second of the torch module's output); ``top1_agreement`` is the share (0..1) of samples (of maps:
    of positions) whose largest entry along axis 1 of the first output is the same.
    """

    max_abs_difference: float
    max_abs_logit: float
    top1_agreement: float
    samples: int

    @property
    def relative_difference(self) -> float:
        """``max_abs_difference`` in units of the largest output (0 when every output is 0)."""
        return self.max_abs_difference / self.max_abs_logit if self.max_abs_logit > 0 else self.max_abs_difference


def parity(
    module: torch.nn.Module,
    onnx_path: Path,
    samples: np.ndarray[Any, Any] | Sequence[np.ndarray[Any, Any]],
    *,
    batch: int,
    threads: int = 1,
) -> Parity:
    """Compare ``module`` (torch, evaluation mode, as it is) with the file at ``onnx_path`` (onnxruntime, CPU).

    ``samples`` is ``[samples, channels, height, width]`` (or what the module takes; of several inputs an array for
    each), run ``batch`` at a time on ``threads`` threads. Raises ``ValueError`` for no samples, or if the two give
    different numbers of outputs or different shapes.
    """
    inputs = [samples] if isinstance(samples, np.ndarray) else list(samples)
    number = len(inputs[0])
    if number == 0:
        raise ValueError("parity needs at least one sample")
    session = open_session(onnx_path, threads=threads)
    names = [given.name for given in session.get_inputs()]
    parameter = next(module.parameters(), None)
    dtype = torch.float32 if parameter is None else parameter.dtype
    difference = largest = 0.0
    agreeing = 0.0
    with evaluating(module), torch.no_grad():
        for start in range(0, number, batch):
            part = [np.ascontiguousarray(given[start : start + batch]) for given in inputs]
            given = [torch.from_numpy(array).to(dtype) for array in part]
            expected = [output.numpy() for output in flat_outputs(module(*given))]
            fed = zip(names, part, strict=True)
            got = session.run(None, {name: array.astype(np.float32) for name, array in fed})
            if [output.shape for output in expected] != [output.shape for output in got]:
                raise ValueError(
                    f"torch gives outputs {[output.shape for output in expected]}, "
                    f"the ONNX file {[output.shape for output in got]}"
                )
            for one, other in zip(expected, got, strict=True):
                difference = _larger(difference, np.abs(one - other).max(initial=0.0))
                largest = _larger(largest, np.abs(one).max(initial=0.0))
            # One number for each sample has no largest entry.
            same = (
                np.ones(len(part[0]))
                if expected[0].ndim < 2
                else largest_entries(expected[0]) == largest_entries(got[0])
            )
            agreeing += float(same.reshape(len(part[0]), -1).mean(axis=1).sum())
    return Parity(
        max_abs_difference=difference,
        max_abs_logit=largest,
        top1_agreement=agreeing / number,
        samples=number,
    )


def largest_entries(output: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The place of the largest entry along axis 1."""
    found: np.ndarray[Any, Any] = np.argmax(output, axis=1)
    return found


def _larger(one: float, other: Any) -> float:
    """The larger of two, NaN if either is NaN: a comparison that hides NaN would pass it."""
    return float(np.maximum(one, float(other)))
