"""Exact pruning of one sparse model: safetensors in, smaller ONNX file out, with the proof that nothing changed."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from edgefolio.errors import UserError
from edgefolio.manifest import Profile
from edgefolio_pruner.exactness import FLOAT32_BOUND, Exactness, NotExactError, prove_exact
from edgefolio_pruner.export import (
    ExportedModel,
    Parity,
    evaluating,
    export_onnx,
    flat_outputs,
    parity,
    write_atomically,
)
from edgefolio_pruner.network_inputs import first
from edgefolio_pruner.profiling.measure import profile_variants
from edgefolio_pruner.progress import Progress, no_progress
from edgefolio_pruner.spatial import CapturedModel, SpatialReport, capture, channel_groups, compress

_STAGE = "shrink"
_ROUNDS = 5
#: One input reveals a wrong channel as well as a thousand, and float64 is slow.
_PROOF_SAMPLES = 4


@dataclass(frozen=True)
class Shrunk:
    """Result of a shrink.

    ``before`` and ``after`` are the ONNX files of the sparse model (batch norms folded, as in the other) and of the
    shrunk one; the first is gone. ``parity`` compares the shrunk file with the *sparse* torch model. ``profiles`` holds
    ``before`` and ``after``, measured in turns, or nothing if that was not asked for. ``dead_filters`` are the filters
    that hold nothing but zeros.
    """

    report: SpatialReport
    exactness: Exactness
    parity: Parity
    before: ExportedModel
    after: ExportedModel
    profiles: dict[str, Profile]
    threads: int
    dead_filters: int = 0


def shrink_model(
    module: torch.nn.Module,
    *,
    input_shapes: Mapping[str, tuple[int, ...]],
    output: Path,
    output_names: Sequence[str] = (),
    dynamic_size: bool = False,
    samples: int = 8,
    latency_samples: int = 30,
    threads: int = 1,
    seed: int = 0,
    field: str = "--architecture",
    progress: Progress = no_progress,
) -> Shrunk:
    """Remove every channel of ``module`` (float32) that provably does not matter, and write the rest to ``output``.

    ``input_shapes`` are of one sample of each input, without the batch, by the names that the file gives them;
    ``output_names`` replace those that the module gives. Parity
    is checked on ``samples`` random inputs, exactness on the first four of them; each model runs ``latency_samples``
    times with a batch of 1 on ``threads`` threads (0: no measurement). ``field`` is the option that names the model.
    Raises :class:`UserError` if the input does not fit, the model cannot be captured or written, or has no prunable
    layer, and :class:`NotExactError` if the proof fails; then nothing is written.
    """
    module = module.float().eval()
    generator = torch.Generator().manual_seed(seed)
    inputs = tuple(torch.randn((max(2, samples), *shape), generator=generator) for shape in input_shapes.values())
    own_names = _run_once(module, first(inputs, 2), tuple(input_shapes), field=field)
    names = output_names or own_names
    _require_single(module, inputs, field=field)
    progress(stage=_STAGE, fraction=0.05, message="capturing the network")
    captured = capture(module, first(inputs, 2), dynamic_size=dynamic_size)
    _require_prunable(captured, name=type(module).__name__, field=field)
    progress(stage=_STAGE, fraction=0.2, message="removing channels")
    compressed = compress(captured)
    progress(stage=_STAGE, fraction=0.3, message="proving that nothing changed")
    exactness = prove_exact(module, captured, compressed, first(inputs, _PROOF_SAMPLES))
    exactness.require(type(module).__name__)
    with tempfile.TemporaryDirectory(prefix="edgefolio-shrink-") as folder:
        progress(stage=_STAGE, fraction=0.4, message="writing ONNX")
        files = {
            name: export_onnx(
                part,
                first(inputs, 2),
                Path(folder) / f"{name}.onnx",
                input_names=tuple(input_shapes),
                output_names=names,
                dynamic_size=dynamic_size,
            )
            for name, part in (("before", module), ("after", compressed.module))
        }
        progress(stage=_STAGE, fraction=0.6, message="comparing the file with the sparse model")
        proof = parity(module, files["after"].path, [given.numpy() for given in inputs], batch=8, threads=threads)
        _require_near(proof, exactness)
        for batch in (1, 2):
            few = [given.numpy() for given in first(inputs, _PROOF_SAMPLES)]
            _require_near(parity(module, files["after"].path, few, batch=batch, threads=threads), exactness)
        profiles: dict[str, Profile] = {}
        if latency_samples:
            progress(stage=_STAGE, fraction=0.7, message="measuring latency")
            profiles = profile_variants(
                {name: file.path for name, file in files.items()},
                input_shapes=dict(input_shapes),
                batch_sizes=[1],
                threads=threads,
                samples=latency_samples,
                rounds=min(_ROUNDS, latency_samples),
            )
        # The exporter holds what it derived from shared weights twice; the file is never larger than it came.
        smaller = min(files["after"], files["before"], key=lambda file: file.bytes)
        after = _publish(smaller, output)
    progress(stage=_STAGE, fraction=1.0, message="done")
    return Shrunk(
        report=compressed.report,
        exactness=exactness,
        parity=proof,
        before=files["before"],
        after=after,
        profiles=profiles,
        threads=threads,
        dead_filters=dead_filters(module.state_dict()),
    )


def _require_prunable(captured: CapturedModel, *, name: str, field: str) -> None:
    if not any(group.prunable for group in channel_groups(captured)):
        raise UserError(
            "the model has no prunable layer: no convolution or linear layer whose channels only other layers read.",
            field=field,
            value=name,
            remedy="Nothing can be removed from it; deploy it as it is.",
        )


def _require_near(proof: Parity, exactness: Exactness) -> None:
    # The runtime sums in another order: its bound is wider than the torch module's.
    allowed = max(FLOAT32_BOUND, exactness.float32_bound)
    if not proof.relative_difference <= allowed:
        raise NotExactError(
            f"The ONNX file differs from the sparse model by {proof.relative_difference:.3g} of the largest output "
            f"(allowed {allowed:.3g}). Nothing is written. Please report it with the architecture."
        )


def _run_once(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], names: Sequence[str], *, field: str
) -> list[str]:
    """Run the model on two samples; the names of its outputs. Raises :class:`UserError` if it does not take them."""
    shape = " ".join(",".join(str(size) for size in given.shape[1:]) for given in inputs)
    try:
        with torch.no_grad(), evaluating(module):
            outputs = module(*inputs)
    except Exception as error:  # any operator of the user's architecture may reject the shape
        raise UserError(
            f"the model does not take this input ({type(error).__name__}: {' '.join(str(error).split())[:200]}).",
            field="--input-shape",
            value=shape,
            remedy="Give channels, height and width of one image as the model takes them, without the batch; the "
            "option once for each input of a model that takes several.",
        ) from error
    leaves = flat_outputs(outputs)
    if not leaves or any(leaf.ndim == 0 or leaf.shape[0] != len(inputs[0]) for leaf in leaves):
        raise UserError(
            "an output has no batch axis, so samples cannot be told apart.",
            field=field,
            value=type(module).__name__,
            remedy="Let the model return one row for each sample.",
        )
    if not all(bool(torch.isfinite(leaf).all()) for leaf in leaves):
        raise UserError(
            "the model gives values that are not finite (NaN or infinity) for random inputs.",
            field="--weights" if field != "--model" else field,
            remedy="Check the weights; a batch norm with a variance of zero or below is a common cause.",
        )
    if isinstance(outputs, dict) and len(outputs) == len(leaves) and not {*map(str, outputs)} & {*names}:
        return [str(name) for name in outputs]
    return ["output"] if len(leaves) == 1 else [f"output_{index}" for index in range(len(leaves))]


def _require_single(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], *, field: str) -> None:
    """Raise :class:`UserError` unless one sample alone has the outputs that it has among others, in shape."""
    with torch.no_grad(), evaluating(module):
        together = [tuple(leaf.shape[1:]) for leaf in flat_outputs(module(*first(inputs, 2)))]
        try:
            alone = [tuple(leaf.shape) for leaf in flat_outputs(module(*first(inputs, 1)))]
            problem = f"gives {alone} instead of {[(1, *shape) for shape in together]}"
            fits = alone == [(1, *shape) for shape in together]
        except Exception as error:  # a module may raise anything
            problem, fits = f"fails ({' '.join(str(error).split())[:200]})", False
    if not fits:
        raise UserError(
            f"for a batch of one sample the model {problem}.",
            field=field,
            value=type(module).__name__,
            remedy="Keep the batch axis: write squeeze(dim) or flatten(1), not squeeze().",
        )


def dead_filters(state: Mapping[str, torch.Tensor]) -> int:
    """The number of filters (rows of weights) that hold nothing but zeros."""
    return sum(
        int((tensor.flatten(1) == 0).all(1).sum())
        for tensor in state.values()
        if tensor.is_floating_point() and tensor.ndim >= 2
    )


def _publish(exported: ExportedModel, output: Path) -> ExportedModel:
    try:
        write_atomically(output, exported.path.read_bytes())
    except OSError as error:
        raise UserError(
            f"the file cannot be written ({error.strerror or error}).",
            field="--output",
            value=output,
            remedy="Name a file in a directory with space that you may write to.",
        ) from error
    return replace(exported, path=output)
