"""Make channels dead in every way in which a sparse net's channels die.

* *Constants*: a filter's weights are zero, its bias and its batch norm's shift are not, so it emits a constant.
* *Zeros*: filter, bias, scale and shift are all zero.
* *Streams*: the same channels die in every layer of one width, so whole residual streams and concatenations die.
* *Unread*: a layer's weights for one input channel are zero, so nobody there reads it.
* *Layers*: one whole layer is zero.

Nothing here knows the compiler; only weights are touched.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from exactness_support.channels import width_of


@dataclass(frozen=True)
class Damage:
    """What was killed: output channels of convolutions and linear layers, all of theirs, and a layer killed whole."""

    dead_filters: int
    filters: int
    unread_columns: int
    whole_layer: str | None

    @property
    def dead_share(self) -> float:
        """Dead filters / all filters: what an ideal compiler could remove by the dead filters alone."""
        return self.dead_filters / max(1, self.filters)


def damage(
    module: nn.Module, example: torch.Tensor, *, seed: int, share: float = 0.3, keep: nn.Module | None = None
) -> Damage:
    """Kill about ``share`` of the channels of ``module``, in place, and leave it alive: its outputs still vary.

    ``keep`` is a layer that is left whole (a classifier's rows are outputs, no channel). Where so much damage would
    make the outputs constant, less is done. Raises ``ValueError`` if even an eighth of it would.
    """
    whole = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    for attempt in range(4):
        done = _damage_once(module, example, seed=seed + 1000 * attempt, share=share / 2**attempt, keep=keep)
        if is_alive(module, example):
            return done
        module.load_state_dict(whole)
    raise ValueError("the net's outputs do not vary, however little is killed")


def _damage_once(
    module: nn.Module, example: torch.Tensor, *, seed: int, share: float, keep: nn.Module | None
) -> Damage:
    rng = np.random.default_rng(seed)
    layers = {name: part for name, part in module.named_modules() if isinstance(part, _ConvNd | nn.Linear)}
    norms = {name: part for name, part in module.named_modules() if isinstance(part, _BatchNorm) and part.affine}
    with torch.no_grad():
        by_width = _dead_by_width(layers, rng, share)
        unread = 0
        for part in layers.values():
            width = width_of(part)
            if part is not keep and width in by_width and rng.random() < 0.85:
                zero, constant = by_width[width]
                _kill_rows(part, zero, bias=True)
                _kill_rows(part, constant, bias=False)
            if part is not keep and width >= 4 and rng.random() < 0.6:
                _kill_rows(part, _some(rng, width, share / 3), bias=False)
            if rng.random() < 0.6:
                unread += _kill_columns(part, rng, share / 3)
        for norm in norms.values():
            if norm.num_features in by_width and rng.random() < 0.85:
                zero, constant = by_width[norm.num_features]
                norm.weight[zero] = 0.0
                norm.bias[zero] = 0.0
                if rng.random() < 0.5:
                    norm.weight[constant] = 0.0  # the shift stays: a constant whatever comes in
        whole = _kill_one_layer(module, example, {n: p for n, p in layers.items() if p is not keep}, rng)
    dead = sum(_dead_rows(part) for part in layers.values() if part is not keep)
    total = sum(width_of(part) for part in layers.values() if part is not keep)
    return Damage(dead_filters=dead, filters=total, unread_columns=unread, whole_layer=whole)


def is_alive(module: nn.Module, example: torch.Tensor) -> bool:
    """Whether every output of ``module`` still varies from sample to sample, by more than a thousandth of its size."""
    with torch.no_grad():
        leaves, _ = torch.utils._pytree.tree_flatten(module(example))
    return all(
        bool(torch.isfinite(leaf).all()) and float((leaf - leaf[:1]).abs().max()) > 1e-3 * float(leaf.abs().max())
        for leaf in leaves
    )


def _dead_by_width(
    layers: dict[str, nn.Module], rng: np.random.Generator, share: float
) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """For each width of a layer: channels that die as zeros and channels that die as constants, everywhere."""
    widths = sorted({width_of(part) for part in layers.values() if width_of(part) >= 4})
    return {width: (_some(rng, width, share / 2), _some(rng, width, share / 2)) for width in widths}


def _some(rng: np.random.Generator, width: int, share: float) -> torch.Tensor:
    count = min(width - 2, max(1, round(width * share)))
    return torch.from_numpy(np.sort(rng.choice(width, size=count, replace=False)))


def _rows(part: nn.Module) -> torch.Tensor:
    """The weight as a view whose axis 0 is the output channel (transposed convolutions hold it on axis 1)."""
    weight: torch.Tensor = part.weight  # type: ignore[assignment]
    if not isinstance(part, _ConvTransposeNd):
        return weight
    groups = part.groups
    grouped = weight.view(groups, weight.shape[0] // groups, *weight.shape[1:])
    # [groups, in / groups, out / groups, ...] -> [groups, out / groups, in / groups, ...]; written through below.
    return grouped.transpose(1, 2)


def _kill_rows(part: nn.Module, channels: torch.Tensor, *, bias: bool) -> None:
    rows = _rows(part)
    if isinstance(part, _ConvTransposeNd):
        per_group = rows.shape[1]
        for channel in channels.tolist():
            rows[channel // per_group, channel % per_group] = 0.0
    else:
        rows[channels] = 0.0
    if bias and part.bias is not None:
        part.bias[channels] = 0.0  # type: ignore[index,operator]


def _dead_rows(part: nn.Module) -> int:
    rows = _rows(part).detach()
    if isinstance(part, _ConvTransposeNd):
        rows = rows.reshape(part.out_channels, -1)
    return int((rows.reshape(rows.shape[0], -1).abs().amax(dim=1) == 0).sum())


def _kill_columns(part: nn.Module, rng: np.random.Generator, share: float) -> int:
    weight: torch.Tensor = part.weight  # type: ignore[assignment]
    axis = 0 if isinstance(part, _ConvTransposeNd) else 1
    width = weight.shape[axis]
    if width < 4:
        return 0
    columns = _some(rng, width, share)
    weight.index_fill_(axis, columns, 0.0)
    return len(columns)


def _kill_one_layer(
    module: nn.Module, example: torch.Tensor, layers: dict[str, nn.Module], rng: np.random.Generator
) -> str | None:
    """Zero one whole layer's weights, the first of three drawn at random that leaves the net alive."""
    names = list(layers)
    for index in rng.permutation(len(names))[:3]:
        part = layers[names[int(index)]]
        weight: torch.Tensor = part.weight  # type: ignore[assignment]
        saved = weight.clone()
        weight.zero_()
        if is_alive(module, example):
            return names[int(index)]
        weight.copy_(saved)
    return None
