"""Wrappers around modules that change where a network runs, not what it computes: taken off, or refused.

Their names are taken off those of weights as well, which were perhaps saved from a wrapped network.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from edgefolio.errors import UserError

#: Where wrappers keep what they wrap: of data parallelism, and of torch.compile.
_ATTRIBUTES = ("module", "_orig_mod")
_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrapped(module: nn.Module, *, field: str, name: str) -> nn.Module:
    """``module`` without DataParallel, DistributedDataParallel and torch.compile, at any depth.

    Raises :class:`UserError` for ``field`` if TorchScript is in it, whose code torch.export does not read.
    """
    module = _inner(module)
    for path, child in list(module.named_modules()):
        if isinstance(child, torch.jit.ScriptModule):
            raise UserError(
                f"{f'its part {path!r}' if path else 'it'} is TorchScript, which cannot be captured.",
                field=f"{field}.name",
                value=name,
                remedy="Return the module as it was before torch.jit.script or torch.jit.trace.",
            )
        for key, grandchild in list(child.named_children()):
            inner = _inner(grandchild)
            if inner is not grandchild:
                child._modules[key] = inner
    # Module.compile() leaves the module as it is, and its compiled call beside it.
    for child in module.modules():
        child._compiled_call_impl = None
    return module


def without_wrapper_names(state: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """``state`` under the names that the unwrapped network has: of ``module.0.weight`` the ``0.weight``.

    A name that is wanted as it is stays, and so does one that is not wanted without wrappers either.
    """
    names: dict[str, str] = {}
    for name in state:
        bare = ".".join(piece for piece in name.split(".") if piece not in _ATTRIBUTES)
        names[name] = bare if name not in wanted and bare in wanted and bare not in state else name
    if len(set(names.values())) != len(names):
        return dict(state)
    return {names[name]: tensor for name, tensor in state.items()}


def _inner(module: nn.Module) -> nn.Module:
    while isinstance(module, _PARALLEL) or type(module).__name__ == "OptimizedModule":
        held = next((getattr(module, name) for name in _ATTRIBUTES if name in module._modules), None)
        if not isinstance(held, nn.Module):
            return module
        module = held
    return module
