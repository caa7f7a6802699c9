"""One-shot pruning: smaller variants of a trained model from a few hundred unlabelled samples, without training.

Second-order selection on calibration Grams (Hassibi and Stork's optimal brain surgeon on blocks of columns), then a
cascade: each reader in turn is re-fitted by least squares so that, on the *pruned* net's inputs, it gives what the
*original* net gave. So later readers correct the residual of earlier ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from edgefolio.errors import UserError
from edgefolio_pruner.oneshot.cascade import State
from edgefolio_pruner.oneshot.readers import find_readers
from edgefolio_pruner.oneshot.result import OneShotResult
from edgefolio_pruner.oneshot.targets import LEAST_SAMPLES, TargetPruner
from edgefolio_pruner.progress import Progress, no_progress
from edgefolio_pruner.spatial import CapturedModel, capture, channel_groups


def prune_to_targets(
    *,
    module: nn.Module,
    calibration: torch.Tensor,
    macs_percents: Sequence[int],
    seed: int,
    threads: int,
    progress: Progress = no_progress,
) -> tuple[OneShotResult, ...]:
    """One variant per entry of ``macs_percents``, in that order; shared work is done once.

    ``module`` is trained, on the CPU, and left as it is. ``calibration`` is [N, C, H, W], float32, prepared as the
    module expects it, 256 to 1024 samples as a rule; labels are not needed. ``macs_percents`` are parts of the dense
    model's multiply-accumulates, 1 to 100. Equal arguments give equal results on one machine.

    Raises :class:`~edgefolio.errors.UserError` for samples that do not fit or are not finite, weights that are not
    finite, and a model without any group that this route can prune.
    """
    started = time.perf_counter()
    _check(module, calibration, macs_percents)
    with _threads(threads), torch.no_grad():
        progress(stage="one-shot", fraction=0.0, message="capturing the model")
        captured = capture(module, (calibration[:2],))
        groups = channel_groups(captured)
        readers, left_out = find_readers(captured.graph_module.graph, captured.parameters, groups)
        if not any(reader.group is not None for reader in readers):
            reasons = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:5]) or "no groups"
            raise UserError(
                f"the model has no channels that the one-shot route can prune ({reasons}).",
                field="spec.methods.oneShot",
                remedy="Use sparseTraining, or leave oneShot out.",
            )
        pruner = TargetPruner(
            captured,
            groups=groups,
            readers=readers,
            calibration=calibration,
            percents=macs_percents,
            seed=seed,
            progress=progress,
        )
        nets = pruner.run()
    model = pruner.model
    dense = model.macs(model.channels)
    seconds = (time.perf_counter() - started) / len(nets)
    results: list[OneShotResult] = []
    for percent, net in zip(macs_percents, nets, strict=True):
        kept = {name: (len(channels), model.channels[name]) for name, channels in net.kept.items()}
        reached = 100 * model.macs(model.channels | {name: count for name, (count, _) in kept.items()}) / dense
        notes = list(pruner.notes)
        if reached > percent + 1e-9:
            notes.append(
                f"{percent} % of the multiply-accumulates were asked for, {reached:.1f} % reached: the groups with one "
                f"reader are down to their least channels, and {len(left_out)} other groups are not pruned"
            )
        results.append(
            OneShotResult(
                state=_full_state(module, captured, net.state),
                kept=kept,
                macs_percent=percent,
                macs_percent_reached=reached,
                reached=reached <= percent + 1e-9,
                residuals=tuple(net.residuals),
                left_out=dict(left_out),
                samples=pruner.samples,
                seconds=seconds,
                notes=tuple(notes),
            )
        )
    return tuple(results)


def _full_state(module: nn.Module, captured: CapturedModel, state: State) -> State:
    """The module's whole state dict, tied weights under all their names."""
    full: State = {}
    for name, tensor in module.state_dict().items():
        held = state.get(captured.aliases.get(name, name))
        full[name] = (tensor if held is None else held.to(tensor.dtype)).detach().clone()
    return full


def _check(module: nn.Module, calibration: torch.Tensor, percents: Sequence[int]) -> None:
    if calibration.ndim < 2 or len(calibration) < LEAST_SAMPLES:
        raise UserError(
            f"the one-shot route needs at least {LEAST_SAMPLES} calibration samples.",
            field="spec.data.calibrationSamples",
            value=tuple(calibration.shape),
            remedy="Give 256 to 1024 samples as an array [N, C, H, W].",
        )
    if not bool(torch.isfinite(calibration).all()):
        raise UserError(
            "calibration samples are not finite.",
            field="spec.data.trainingURI",
            remedy="Remove samples that hold NaN or infinite values.",
        )
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UserError(
                "weights are not finite.",
                field="spec.source.weightsURI",
                value=name,
                remedy="Train the model again, or give other weights.",
            )
    for percent in percents:
        if not 1 <= percent <= 100:
            raise UserError(
                "not a part of the multiply-accumulates.",
                field="spec.methods.oneShot.macsPercent",
                value=percent,
                remedy="Give whole numbers from 1 to 100.",
            )


@contextmanager
def _threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
