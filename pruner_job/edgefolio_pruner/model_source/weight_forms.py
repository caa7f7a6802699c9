"""Forms in which weights are saved: under a prefix, as an average beside the trained ones, with masks, or as the parts
of a norm. Each is brought to the plain names and values of the network itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

#: Prefixes of averaged weights; they are what was validated, so they come first.
_AVERAGES = ("ema_model.", "model_ema.", "ema.", "averaged_model.", "swa_model.")
_WEIGHT_NORM, _SPECTRAL_NORM = "weight_norm", "spectral_norm"


def plain_weights(state: Mapping[str, Tensor], wanted: Collection[str]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """``state`` under the names ``wanted`` as far as they can be found, and what is to be told of it."""
    found, folded = _folded(state, wanted)
    prefixed, notes = _without_prefix(found, wanted)
    told = [f"{count} weights of the file were given as {what}, and are folded" for what, count in folded.items()]
    return prefixed, (*told, *notes)


def plain_module(module: nn.Module) -> nn.Module:
    """``module`` with plain weights: parametrizations, norms of weights and pruning masks are computed, and gone.

    They hold in evaluation, where nothing of them changes; a network that is trained on is trained without.
    """
    module.eval()
    with torch.no_grad():
        for part in list(module.modules()):
            if parametrize.is_parametrized(part):
                for name in list(part.parametrizations):  # type: ignore[arg-type]
                    _fold_parametrization(part, str(name))
            for hook in list(part._forward_pre_hooks.values()):
                kind = type(hook).__name__
                if isinstance(hook, prune.BasePruningMethod):
                    prune.remove(part, hook._tensor_name)  # type: ignore[no-untyped-call]
                elif kind == "WeightNorm":
                    nn.utils.remove_weight_norm(part, hook.name)  # type: ignore[attr-defined]
                elif kind == "SpectralNorm":
                    nn.utils.remove_spectral_norm(part, hook.name)  # type: ignore[attr-defined]
    return module.train()


def weights_as_built(state: Mapping[str, Tensor], built: nn.Module) -> dict[str, Tensor] | None:
    """Plain weights of ``built``, a network with parametrizations of any kind, whose own names ``state`` holds.

    ``built`` is changed. ``None`` if names or shapes are others, or if the network is plain.
    """
    wanted = built.state_dict()
    found, _ = _without_prefix(dict(state), wanted)
    if any(name not in found or found[name].shape != tensor.shape for name, tensor in wanted.items()):
        return None
    built.load_state_dict(found, strict=False)
    plain = plain_module(built).state_dict()
    return None if plain.keys() == wanted.keys() else plain


def _fold_parametrization(part: nn.Module, name: str) -> None:
    """Make ``name`` of ``part`` what it was before: a parameter that is trained as its parts were, or a buffer."""
    parts = list(part.parametrizations[name].parameters(recurse=False))  # type: ignore[index, union-attr]
    value = getattr(part, name).detach().clone(memory_format=torch.contiguous_format)
    parametrize.remove_parametrizations(part, name, leave_parametrized=True)
    if not parts:
        return
    # Of several parts torch makes a buffer, which nothing would train.
    delattr(part, name)
    part.register_parameter(name, nn.Parameter(value, requires_grad=any(one.requires_grad for one in parts)))


def _folded(state: Mapping[str, Tensor], wanted: Collection[str]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Weights that are given as parts, computed; and how many of each kind."""
    found = dict(state)
    counts: dict[str, int] = {}
    for name in list(state):
        for suffix, fold in _PARTS.items():
            if not name.endswith(suffix) or name in wanted:
                continue
            computed = fold(name.removesuffix(suffix), found)
            if computed is not None:
                whole, value, parts, what = computed
                for part in parts:
                    found.pop(part, None)
                found[whole] = value
                counts[what] = counts.get(what, 0) + 1
                break
    return found, counts


_Folded = tuple[str, Tensor, tuple[str, ...], str] | None


def _mask(base: str, state: Mapping[str, Tensor]) -> _Folded:
    names = (f"{base}_orig", f"{base}_mask")
    if not all(name in state for name in names) or state[names[0]].shape != state[names[1]].shape:
        return None
    return base, state[names[0]] * state[names[1]].to(state[names[0]].dtype), names, "pruning masks"


def _weight_norm(base: str, state: Mapping[str, Tensor]) -> _Folded:
    names = (f"{base}_g", f"{base}_v")
    return _of_length(base, state, names)


def _new_weight_norm(base: str, state: Mapping[str, Tensor]) -> _Folded:
    names = (f"{base}.original0", f"{base}.original1")
    return _of_length(_holder(base), state, names)


def _of_length(whole: str, state: Mapping[str, Tensor], names: tuple[str, str]) -> _Folded:
    if not all(name in state for name in names):
        return None
    length, direction = (state[name] for name in names)
    if length.ndim not in (0, direction.ndim):
        return None
    axes = [axis for axis in range(direction.ndim) if length.ndim == 0 or length.shape[axis] == 1]
    if not axes:
        return whole, direction * length / direction.abs(), names, "weight norm"
    return whole, direction * (length / direction.square().sum(dim=axes, keepdim=True).sqrt()), names, "weight norm"


def _spectral_norm(base: str, state: Mapping[str, Tensor]) -> _Folded:
    names = (f"{base}_orig", f"{base}_u", f"{base}_v")
    return _by_largest(base, state, names)


def _new_spectral_norm(base: str, state: Mapping[str, Tensor]) -> _Folded:
    names = (f"{base}.original", f"{base}.0._u", f"{base}.0._v")
    return _by_largest(_holder(base), state, names)


def _by_largest(whole: str, state: Mapping[str, Tensor], names: tuple[str, str, str]) -> _Folded:
    if not all(name in state for name in names):
        return None
    weight, left, right = (state[name] for name in names)
    for axis in range(weight.ndim):
        matrix = weight.movedim(axis, 0).flatten(1)
        if matrix.shape == (left.numel(), right.numel()):
            return whole, weight / torch.dot(left, matrix @ right), names, "spectral norm"
    return None


def _holder(base: str) -> str:
    """Of ``conv.parametrizations.weight`` the ``conv.weight``."""
    return (
        base.replace("parametrizations.", "", 1)
        if base.startswith("parametrizations.")
        else base.replace(".parametrizations.", ".", 1)
    )


#: The last part of a name by which each form is known, and what computes the whole.
_PARTS = {
    "_mask": _mask,
    "_u": _spectral_norm,
    "_g": _weight_norm,
    ".original0": _new_weight_norm,
    ".original": _new_spectral_norm,
}


def _without_prefix(state: dict[str, Tensor], wanted: Collection[str]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights under the one prefix under which all that are wanted stand; without one ``state`` as it is."""
    needed = {name for name in wanted if not name.endswith("num_batches_tracked")}
    if not needed or needed <= state.keys():
        return state, ()
    one = max(needed, key=len)
    prefixes = {name.removesuffix(one) for name in state if name.endswith(one) and name != one}
    whole = sorted(
        prefix for prefix in prefixes if prefix.endswith(".") and all(f"{prefix}{name}" in state for name in needed)
    )
    if not whole:
        return state, ()
    averages = [prefix for prefix in whole if any(prefix.endswith(average) for average in _AVERAGES)]
    prefix = (averages or whole)[0]
    if len(whole) > 1 and not averages:
        return state, ()
    found = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    others = len(state) - len(found)
    what = f"the weights under {prefix!r} in the file are taken"
    return found, (f"{what}, {others} other tensors are not" if others else what,)
