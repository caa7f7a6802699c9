"""Proof that the network built of an ONNX file answers as ONNX Runtime does with the file itself."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from edgefolio.errors import UserError
from edgefolio_pruner.available_memory import require_memory
from edgefolio_pruner.export import evaluating, flat_outputs
from edgefolio_pruner.onnx_source.network import OnnxNetwork, Step, run_step
from edgefolio_pruner.onnx_source.operators.operator import Value
from edgefolio_pruner.profiling.session import open_session

__all__ = ["require_possible", "require_same_answers"]

#: Largest difference, as a share of the largest output: of another order of sums.
_BOUND = 1e-4
#: Differences as small as that say nothing: the runtime's sigmoid is 1.1e-7 off (ONNX Runtime 1.32).
_LEAST = 1e-6
#: The bound as a multiple of what float32 itself is from float64, where that is more.
_FACTOR = 16.0
_BATCHES = (1, 2)
_REPORT = "Please report it with the file; until then, export the network in another way."


def require_possible(network: OnnxNetwork, shape: tuple[int, ...], *, field: str, name: str) -> None:
    """Run ``network`` on sizes alone. Raises :class:`UserError` if it refuses them, or memory is short."""

    def watch(step: Step, given: Sequence[Value | None]) -> tuple[Value, ...]:
        found = run_step(step, network.layer_of(step), given)
        held = sum(value.numel() * value.element_size() for value in found if isinstance(value, torch.Tensor))
        require_memory(
            held, what=f"the operator {step.node.operator} (node {step.node.name!r})", field=field, value=name
        )
        return found

    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        try:
            network.run(torch.empty(_BATCHES[-1], *shape), watch)
        except UserError as error:
            raise _of_field(error, field, name) from error
        except Exception as error:  # torch raises its own kinds for sizes that do not fit
            raise UserError(
                f"it does not take samples of {_shown(shape)} ({' '.join(str(error).split())[:300]}).",
                field=field,
                value=name,
                remedy="Give samples of the shape that the network was exported for.",
            ) from error


def require_same_answers(
    network: OnnxNetwork, content: bytes, shape: tuple[int, ...], *, field: str, name: str, threads: int = 1
) -> None:
    """Compare both on random samples, at a batch of 1 and 2. Raises :class:`UserError` unless they differ by rounding.

    A file whose batch is fixed at 1 answers one sample at a time.
    """
    single = network.file_input.sizes is not None and network.file_input.sizes[0] == 1
    try:
        session = open_session(content, threads=threads)
    except Exception as error:  # the runtime raises its own kinds
        raise UserError(
            f"ONNX Runtime refuses it ({_line(error)}).", field=field, value=name, remedy="Export it again."
        ) from error
    generator = np.random.default_rng(0)
    for draw in (generator.standard_normal, generator.random):
        for batch in _BATCHES:
            samples = draw((batch, *shape)).astype(np.float32)
            try:
                parts = [samples[at : at + 1] for at in range(batch)] if single else [samples]
                answers = [session.run(None, {network.file_input.name: part}) for part in parts]
            except Exception as error:  # the runtime raises its own kinds
                raise UserError(
                    f"ONNX Runtime cannot run it on {batch} samples of {_shown(shape)} ({_line(error)}).",
                    field=field,
                    value=name,
                    remedy="Give samples of the shape that the network was exported for, or export it again.",
                ) from error
            wanted = [np.concatenate(outputs) if single else outputs[0] for outputs in zip(*answers, strict=True)]
            _require_near(network, samples, wanted, field=field, name=name)


def _require_near(
    network: OnnxNetwork,
    samples: np.ndarray[Any, Any],
    wanted: list[np.ndarray[Any, Any]],
    *,
    field: str,
    name: str,
) -> None:
    given = torch.from_numpy(samples)
    found = _answers(network, given)
    if [one.shape for one in found] != [one.shape for one in wanted]:
        raise UserError(
            f"ONNX Runtime gives outputs of {[one.shape for one in wanted]}, the network built of it "
            f"{[one.shape for one in found]}.",
            field=field,
            value=name,
            remedy="Export it with a free batch on axis 0 of all outputs, and no operation that depends on it.",
        )
    if all(_near(one, other, _BOUND * _largest(one)) for one, other in zip(wanted, found, strict=True)):
        return
    exact = _answers(copy.deepcopy(network).double(), given.double())
    for one, other, best in zip(wanted, found, exact, strict=True):
        bound = max(_BOUND * _largest(best), _FACTOR * _largest(other - best))
        if not _near(one, best, bound):
            raise UserError(
                f"for {len(samples)} random samples the network built of it differs from ONNX Runtime by "
                f"{_largest(one - best):.3g}, where the largest output is {_largest(best):.3g}.",
                field=field,
                value=name,
                remedy=_REPORT,
            )


def _answers(network: torch.nn.Module, samples: torch.Tensor) -> list[np.ndarray[Any, Any]]:
    with torch.no_grad(), evaluating(network):
        return [one.numpy() for one in flat_outputs(network(samples))]


def _largest(values: np.ndarray[Any, Any]) -> float:
    return float(np.abs(values).max(initial=0.0))


def _near(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any], bound: float) -> bool:
    # Written so that a NaN is near nothing, unless both have it.
    return _largest(one - other) <= max(bound, _LEAST) or bool(np.array_equal(one, other, equal_nan=True))


def _of_field(error: UserError, field: str, name: str) -> UserError:
    return UserError(error.problem, field=field, value=name, remedy=error.remedy)


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
