"""One-shot pruning: smaller variants of a trained model from a few hundred unlabelled samples, without training.

Second-order selection on calibration Grams (Hassibi and Stork's optimal brain surgeon on blocks of columns), then a
cascade: each reader in turn is re-fitted by least squares so that, on the *pruned* net's inputs, it gives what the
*original* net gave. So later readers correct the residual of earlier ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from edgefolio.errors import UserError
from edgefolio_pruner.calibrating.graph_run import peak_bytes_per_sample
from edgefolio_pruner.calibrating.linear_maps import State, linear_maps
from edgefolio_pruner.finite import all_finite
from edgefolio_pruner.network_inputs import Samples, by_input, count, first
from edgefolio_pruner.oneshot.attention.coordinates import in_own_coordinates
from edgefolio_pruner.oneshot.costs.latency import latency_model, layer_shapes
from edgefolio_pruner.oneshot.costs.macs import CostModel, attention_costs, layer_costs
from edgefolio_pruner.oneshot.prunable_groups import PrunableGroup, channel_step, prunable_groups
from edgefolio_pruner.oneshot.result import OneShotResult, OneShotResults
from edgefolio_pruner.oneshot.targets import LEAST_SAMPLES, MEMORY_BYTES, Target, TargetPruner
from edgefolio_pruner.oneshot.unread import with_unread
from edgefolio_pruner.profiling.layer_times import LayerShape, LayerTimes
from edgefolio_pruner.progress import Progress, no_progress
from edgefolio_pruner.refit import GRAM_COLUMNS, NotFiniteError
from edgefolio_pruner.spatial import CapturedModel, attention_layers, capture, channel_groups


@dataclass(frozen=True, kw_only=True)
class LeastShare:
    """The least part of the multiply-accumulates that a network can be pruned to, ``groups`` that are pruned, and why
    others are not."""

    percent: float
    groups: tuple[str, ...]
    left_out: Mapping[str, str]


_MEASURED = {"macs": "multiply-accumulates", "latency": "milliseconds"}


def prune_to_targets(
    *,
    module: nn.Module,
    calibration: Samples,
    macs_percents: Sequence[int],
    seed: int,
    threads: int,
    progress: Progress = no_progress,
) -> tuple[OneShotResult, ...]:
    """One variant per entry of ``macs_percents``, in that order; shared work is done once.

    ``module`` is trained, on the CPU, and left as it is. ``calibration`` is [N, C, H, W], float32, prepared as the
    module expects it (of several inputs a tensor for each), 256 to 1024 samples as a rule; labels are not needed.
    ``macs_percents`` are parts of the dense model's multiply-accumulates, 1 to 100. Equal arguments give equal results
    on one machine.

    Raises :class:`~edgefolio.errors.UserError` for samples that do not fit or are not finite, weights that are not
    finite, and a model without any group that this route can prune.
    """
    found = _prune(module, calibration, macs_percents, None, seed=seed, threads=threads, progress=progress)
    return found.results


def prune_to_latencies(
    *,
    module: nn.Module,
    calibration: Samples,
    latency_percents: Sequence[int],
    layer_times: Mapping[str, LayerTimes],
    seed: int,
    threads: int,
    progress: Progress = no_progress,
) -> OneShotResults:
    """As :func:`prune_to_targets`, by parts of the dense model's time as ``layer_times`` (by weight) tell it.

    The plans depend on the table alone, so a table that is kept gives the same bits anywhere.
    """
    return _prune(module, calibration, latency_percents, layer_times, seed=seed, threads=threads, progress=progress)


def layers_to_time(module: nn.Module, example: Samples) -> tuple[LayerShape, ...]:
    """The layers and widths that a table of times for :func:`prune_to_latencies` must hold."""
    captured = capture(module, first(example, 2), share_weights=True)
    graph, state = captured.graph_module.graph, captured.parameters
    maps, refused = linear_maps(graph, state)
    groups, _ = prunable_groups(channel_groups(captured), maps, refused, attention_layers(captured))
    steps = {group.name: channel_step(group.channels) for group in groups}
    return layer_shapes(graph, state, [group.group for group in groups], steps=steps)


def _prune(
    module: nn.Module,
    calibration: Samples,
    percents: Sequence[int],
    layer_times: Mapping[str, LayerTimes] | None,
    *,
    seed: int,
    threads: int,
    progress: Progress,
) -> OneShotResults:
    started = time.perf_counter()
    _check(module, calibration, percents, "macsPercent" if layer_times is None else "latencyPercent")
    with _threads(threads), torch.no_grad():
        progress(stage="one-shot", fraction=0.0, message="capturing the model")
        captured = capture(module, first(calibration, 2), share_weights=True)
        graph, state = captured.graph_module.graph, captured.parameters
        maps, refused = linear_maps(graph, state)
        attention = attention_layers(captured)
        groups, left_out = _required(*prunable_groups(channel_groups(captured), maps, refused, attention))
        held = [group.group for group in groups]
        layers = (*layer_costs(graph, state, held), *attention_costs(attention, held))
        macs = CostModel(layers, {group.name: group.channels for group in held})
        model = macs if layer_times is None else latency_model(layers, layer_times, held)
        by: Literal["macs", "latency"] = "macs" if layer_times is None else "latency"
        targets = [Target(by, percent, model) for percent in percents]
        try:
            if attention:
                state = in_own_coordinates(graph, state, calibration, maps, attention, seed=seed)
            pruner = TargetPruner(
                graph,
                state,
                groups=groups,
                maps=maps,
                calibration=calibration,
                targets=targets,
                seed=seed,
                progress=progress,
            )
            found = pruner.run()
        except NotFiniteError as error:
            raise UserError(
                "activations of the network are not finite (NaN or infinity) on the calibration samples.",
                field="spec.source.weightsURI",
                remedy="Check the weights: a negative running variance or huge values give such activations.",
            ) from error
    seconds = (time.perf_counter() - started) / max(1, len(found))
    results: list[OneShotResult] = []
    for target in targets:
        net = found[target]
        if isinstance(net, str):
            continue
        dropped = {name: macs.channels[name] - len(channels) for name, channels in net.kept.items()}
        dropped = with_unread(groups, dropped, state)
        reached = 100 * target.left(dropped) / target.dense
        notes = list(pruner.notes)
        if reached > target.percent + 1e-9:
            notes.append(
                f"{target.percent} % of the {_MEASURED[by]} were asked for, {reached:.1f} % reached: all groups that "
                f"can be pruned are down to their least channels, and {len(left_out)} others are not pruned"
            )
        results.append(
            OneShotResult(
                state=_full_state(module, captured, net.state),
                kept={name: (macs.channels[name] - count, macs.channels[name]) for name, count in dropped.items()},
                by=by,
                percent=target.percent,
                percent_reached=reached,
                macs_percent_reached=100 * Target("macs", 100, macs).left(dropped) / macs.cost(macs.channels),
                reached=reached <= target.percent + 1e-9,
                residuals=tuple(net.residuals),
                left_out=dict(left_out),
                samples=pruner.samples,
                seconds=seconds,
                notes=tuple(notes),
            )
        )
    not_offered = {target.percent: reason for target, reason in found.items() if isinstance(reason, str)}
    return OneShotResults(results=tuple(results), not_offered=not_offered)


def least_share(captured: CapturedModel) -> LeastShare:
    """What the one-shot route can do with a captured network. Raises :class:`UserError` if that is nothing."""
    graph, state = captured.graph_module.graph, captured.parameters
    maps, refused = linear_maps(graph, state)
    attention = attention_layers(captured)
    groups, left_out = _required(*prunable_groups(channel_groups(captured), maps, refused, attention))
    held = [group.group for group in groups]
    layers = (*layer_costs(graph, state, held), *attention_costs(attention, held))
    costs = CostModel(layers, {group.name: group.channels for group in held})
    least = costs.cost({group.name: max(1, group.least) for group in groups})
    return LeastShare(
        percent=100 * least / costs.cost(costs.channels),
        groups=tuple(group.name for group in groups),
        left_out=left_out,
    )


def one_shot_bytes(captured: CapturedModel, example: Samples, *, samples: int) -> int:
    """About the bytes that :func:`prune_to_targets` takes beside what is held before it."""
    graph, state = captured.graph_module.graph, captured.parameters
    maps, _ = linear_maps(graph, state)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    activations = min(MEMORY_BYTES, int(2 * samples * peak_bytes_per_sample(graph, state, example)))
    # Five matrices of float64, as in refit.wide; wider maps get none.
    grams = max(
        (40 * linear.groups * linear.columns**2 for linear in maps if linear.columns <= GRAM_COLUMNS), default=0
    )
    return activations + grams + 4 * weights


def _required(
    groups: Sequence[PrunableGroup], left_out: dict[str, str]
) -> tuple[Sequence[PrunableGroup], dict[str, str]]:
    if groups:
        return groups, left_out
    reasons = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:5]) or "no groups"
    raise UserError(
        f"the model has no channels that the one-shot route can prune ({reasons}).",
        field="spec.methods.oneShot",
        remedy="Use sparseTraining, or leave oneShot out.",
    )


def _full_state(module: nn.Module, captured: CapturedModel, state: State) -> State:
    """The module's whole state dict, tied weights under all their names."""
    full: State = {}
    for name, tensor in module.state_dict().items():
        held = state.get(captured.aliases.get(name, name))
        full[name] = (tensor if held is None else held.to(tensor.dtype)).detach().clone()
    return full


def _check(module: nn.Module, calibration: Samples, percents: Sequence[int], field: str) -> None:
    given = by_input(calibration)
    if min(tensor.ndim for tensor in given) < 2 or count(calibration) < LEAST_SAMPLES:
        raise UserError(
            f"the one-shot route needs at least {LEAST_SAMPLES} calibration samples.",
            field="spec.data.calibrationSamples",
            value=", ".join(f"{tuple(tensor.shape)}" for tensor in given),
            remedy="Give 256 to 1024 samples as an array [N, C, H, W].",
        )
    if not all(all_finite(tensor) for tensor in given):
        raise UserError(
            "calibration samples are not finite.",
            field="spec.data.trainingURI",
            remedy="Remove samples that hold NaN or infinite values.",
        )
    for name, tensor in module.state_dict().items():
        if not all_finite(tensor):
            raise UserError(
                "weights are not finite.",
                field="spec.source.weightsURI",
                value=name,
                remedy="Train the model again, or give other weights.",
            )
    for percent in percents:
        if not 1 <= percent <= 100:
            raise UserError(
                "not a part of the dense model's cost.",
                field=f"spec.methods.oneShot.{field}",
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
