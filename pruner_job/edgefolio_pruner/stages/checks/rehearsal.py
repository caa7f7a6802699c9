"""Rehearsal of a pruning run on the network as it is: what would fail after hours of training fails before them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgefolio.errors import UserError
from edgefolio_pruner.export import export_onnx, flat_outputs, parity
from edgefolio_pruner.inputs import MakingSource
from edgefolio_pruner.methods import Method
from edgefolio_pruner.network_inputs import first
from edgefolio_pruner.scoring.score import require_comparable
from edgefolio_pruner.scoring.scoring import Tally
from edgefolio_pruner.stages.graph_cache import GraphCache

_FIELD = "spec.source.architecture"
_SAMPLES = 4
#: Samples that a metric of the user's own is tried on.
_SCORED = 256
#: Answers that differ by less, relative to the largest, are the same.
_RELATIVE_DIFFERENCE = 1e-4
#: A fresh network's outputs may be tiny beside its activations, so the bound is wider than that of a variant.
_PARITY = 1e-2


def rehearse(
    source: MakingSource, graphs: GraphCache, methods: Sequence[Method], *, batches: Sequence[int], threads: int
) -> list[str]:
    """Build, run, ask each method and write ONNX once; what is to be told.

    ``batches`` are the sizes in which the network will be served; it runs in each of them, in torch and as ONNX. Raises
    :class:`UserError` for a network that is another one each time it is built or run, that a method can make nothing
    of, or that ONNX cannot hold.
    """
    module = _built(source)
    samples = source.example(_SAMPLES)
    _require_repeatable(module, _built(source), samples)
    _require_score(module, source)
    told = [note for method in methods for note in method.require_possible(graphs.model)]
    with tempfile.TemporaryDirectory(prefix="edgefolio-rehearsal-") as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(
            module,
            first(samples, 2),
            path,
            input_names=source.data.input_names,
            output_names=source.output_names,
        )
        for batch in sorted({1, 2, *batches}):
            _require_parity(module, path, source, batch=batch, threads=threads)
    return told


def _built(source: MakingSource) -> nn.Module:
    return (source.build() if source.initial_state is None else source.build_with(source.initial_state)).eval()


def _require_repeatable(module: nn.Module, again: nn.Module, samples: tuple[torch.Tensor, ...]) -> None:
    with torch.inference_mode():
        once, second, other = (flat_outputs(network(*samples)) for network in (module, module, again))
    largest = max(*(float(leaf.abs().max()) for leaf in once), 1e-6)
    for found, when, remedy in (
        (second, "run", "Switch off dropout and noise in evaluation mode (self.training, module.eval())."),
        (other, "built", "Draw random numbers from torch, NumPy or random alone: these are seeded."),
    ):
        difference = max(float((one - two).abs().max()) for one, two in zip(once, found, strict=True))
        # Written so that a NaN passes; it is found elsewhere.
        if difference > _RELATIVE_DIFFERENCE * largest:
            raise UserError(
                f"the network answers differently each time it is {when}: by {difference:.3g} where the largest output "
                f"is {largest:.3g}.",
                field=_FIELD,
                value=type(module).__name__,
                remedy=remedy,
            )


def _require_score(module: nn.Module, source: MakingSource) -> None:
    """Call a metric of the user's own once. Raises :class:`UserError` if it fails, or its score cannot be compared."""
    scoring, validation = source.scoring, source.data.validation
    if scoring.own is None or not source.data.has_labels:
        return
    count = min(_SCORED, validation.samples)
    with torch.inference_mode():
        outputs = flat_outputs(module(*(torch.from_numpy(given) for given in validation.inputs(0, count))))
    tally = Tally(scoring)
    tally.add([output.numpy() for output in outputs], validation.labels[:count])
    score = tally.result().score
    # Before it is trained, a network may have any score.
    if source.initial_state is not None:
        require_comparable(score, higher_is_better=scoring.higher_is_better, field=scoring.field, value=scoring.title)


def _require_parity(module: nn.Module, path: Path, source: MakingSource, *, batch: int, threads: int) -> None:
    available = source.data.train.inputs(0, min(batch, source.data.train.samples))
    samples = tuple(np.resize(given, (batch, *given.shape[1:])).astype(np.float32) for given in available)
    try:
        found = parity(module, path, samples, batch=batch, threads=threads)
        problem = (
            f"differs from torch's answer by {found.max_abs_difference:.3g} (the largest output is "
            f"{found.max_abs_logit:.3g})"
        )
        # Written so that a NaN breaks the bound; outputs that are not finite are told of before.
        fits = found.relative_difference <= _PARITY
    except Exception as error:  # the runtime raises its own kinds
        problem, fits = f"fails ({' '.join(str(error).split())[:200]})", False
    if not fits:
        raise UserError(
            f"for a batch of {batch} the ONNX file of the network {problem}.",
            field=_FIELD,
            value=batch,
            remedy="Let no operation depend on the batch size: write flatten(1) and x.shape[0], not fixed numbers.",
        )
