"""Capturing a module as one ATen graph on a private copy of its weights.

``torch.export`` (dynamic batch, static height and width) sees through Python control flow that symbolic tracing cannot,
in one to three seconds. The exported graph is made purely functional, so that every tensor is a value that is written
once, and every weight is held under the name it has in the module's ``state_dict``.
"""

from __future__ import annotations

import copy
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from edgefolio.errors import UserError
from edgefolio_pruner.spatial.graph.dynamic_shapes import dynamic_shapes
from edgefolio_pruner.spatial.graph.functional import functionalize
from edgefolio_pruner.spatial.graph.shapes import symbol_sizes

__all__ = ["CaptureRefused", "CapturedModel", "capture"]


class CaptureRefused(UserError):  # noqa: N818 - a refusal, not a fault
    """The module cannot be captured as one graph; ``problem`` says why."""


@dataclass(frozen=True)
class CapturedModel:
    """A module as one functional ATen graph with weights of its own.

    ``graph_module`` is called like the module (positional tensors, batch on axis 0) and returns the same structure.
    ``input_shapes`` are the shapes of one sample, without the batch axis. ``aliases`` maps each further name of a tied
    weight to the name under which the graph holds it. ``tracing_sizes`` gives the number that stands for each symbolic
    size while shapes are compared (see :mod:`.shapes`).
    """

    graph_module: fx.GraphModule
    input_shapes: tuple[tuple[int, ...], ...]
    aliases: Mapping[str, str]
    tracing_sizes: Mapping[Any, int]
    dynamic_size: bool
    reads_as: torch.dtype | None = None
    """Floating point type that weights are read in, one at a time, where it is not the one that they are held in."""

    @property
    def parameters(self) -> dict[str, torch.Tensor]:
        """Every weight and buffer the graph reads, by its name in the module's ``state_dict``."""
        return dict(self.graph_module.state_dict())

    @property
    def dtype(self) -> torch.dtype:
        """The floating point type of the weights."""
        floating = [value for value in self.parameters.values() if value.is_floating_point()]
        return floating[0].dtype if floating else torch.get_default_dtype()

    def with_state(self, state_dict: Mapping[str, torch.Tensor]) -> CapturedModel:
        """The same graph with other weights, cast to the type of the present ones; no second export.

        Tensors of that type are held as they are given, not copied: nobody writes into them. Raises
        :class:`~edgefolio.errors.UserError` if a weight that the graph reads is missing or has another shape.
        """
        module = copy_graph_module(self.graph_module, share_weights=True)
        present = module.state_dict(keep_vars=True)
        problems: list[str] = []
        for name, tensor in present.items():
            given = state_dict.get(name)
            if given is None:
                given = next((state_dict[a] for a, c in self.aliases.items() if c == name and a in state_dict), None)
            if given is None:
                # Constants that the graph carries but no state_dict names stay as captured.
                if name not in self._unnamed():
                    problems.append(f"{name} is missing")
            elif given.shape != tensor.shape:
                problems.append(f"{name} has shape {tuple(given.shape)}, not {tuple(tensor.shape)}")
            else:
                trainable = isinstance(tensor, torch.nn.Parameter)
                assign_tensor(module, name, given.detach().to(tensor.dtype), trainable=trainable)
        if problems:
            raise UserError(
                "weights do not fit the captured model: " + "; ".join(problems[:10]) + ".",
                field="state_dict",
                remedy="Give the state_dict of the module that was captured.",
            )
        return CapturedModel(module, self.input_shapes, self.aliases, self.tracing_sizes, self.dynamic_size)

    def _unnamed(self) -> frozenset[str]:
        return frozenset(self.graph_module.meta.get("unnamed_constants", ()))


def capture(
    module: torch.nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    *,
    dynamic_size: bool = False,
    share_weights: bool = False,
) -> CapturedModel:
    """Capture ``module`` in evaluation mode as one graph; the module itself is left as it was.

    ``example_inputs`` are float32 or float64 tensors with the batch on axis 0. The batch size of the result is free;
    with ``dynamic_size`` so are axes 2 and 3 of inputs with four axes. The graph has weights of its own unless
    ``share_weights`` is set: then nobody may write into the module's. Raises :class:`CaptureRefused`.
    """
    inputs = tuple(tensor.detach() for tensor in example_inputs)
    _check_inputs(inputs)
    # A batch of one would be taken for a constant.
    inputs = tuple(torch.cat([tensor, tensor]) if tensor.shape[0] < 2 else tensor for tensor in inputs)
    with _evaluation_mode(module), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            shapes = dynamic_shapes(module, inputs, free_size=[dynamic_size and tensor.ndim == 4 for tensor in inputs])
            program = torch.export.export(module, inputs, dynamic_shapes=shapes)
            if dynamic_size:
                _require_free_size(program, inputs)
            graph_module, aliases = _to_graph_module(program, module, share_weights=share_weights)
        except UserError:
            raise
        except Exception as error:
            if "data-dependent" in str(error):
                raise _branches(error) from error
            raise _refusal(type(error).__name__ + ": " + str(error).strip().split("\n")[0][:240]) from error
    return CapturedModel(
        graph_module=graph_module,
        input_shapes=tuple(tuple(tensor.shape[1:]) for tensor in inputs),
        aliases=aliases,
        tracing_sizes=symbol_sizes(graph_module.graph),
        dynamic_size=dynamic_size,
    )


def copy_graph_module(module: fx.GraphModule, *, share_weights: bool = False) -> fx.GraphModule:
    """A copy with its own graph, and its own weights unless shared; node names and metadata are kept."""
    root = torch.nn.Module()
    for name, tensor in module.state_dict(keep_vars=True).items():
        held = tensor.detach() if share_weights else tensor.detach().clone()
        assign_tensor(root, name, held, trainable=isinstance(tensor, torch.nn.Parameter))
    graph = fx.Graph()
    result = graph.graph_copy(module.graph, val_map={})
    _close(graph, module.graph, result)
    copied = fx.GraphModule(root, graph)
    copied.meta.update(copy.copy(module.meta))
    return copied


def assign_tensor(root: torch.nn.Module, name: str, tensor: torch.Tensor, *, trainable: bool = False) -> None:
    """Hold ``tensor`` in ``root`` under a dotted name inside plain containers, as a parameter or a buffer."""
    *path, leaf = name.split(".")
    holder = root
    for part in path:
        if part not in holder._modules:
            holder.add_module(part, torch.nn.Module())
        holder = holder._modules[part]  # type: ignore[assignment]
    if trainable:
        holder.register_parameter(leaf, torch.nn.Parameter(tensor, requires_grad=False))
    else:
        holder.register_buffer(leaf, tensor)


def hold_constant(module: fx.GraphModule, before: fx.Node, name: str, tensor: torch.Tensor) -> fx.Node:
    """A node in front of ``before`` that reads ``tensor``, which ``module`` holds as ``name`` from now on."""
    assign_tensor(module, name, tensor)
    with module.graph.inserting_before(before):
        held = module.graph.get_attr(name)
    mode = getattr(before.meta["val"], "fake_mode", None)
    held.meta["val"] = mode.from_tensor(tensor, static_shapes=True) if mode is not None else tensor
    return held


def _close(graph: fx.Graph, source: fx.Graph, result: Any) -> None:
    output = graph.output(result)
    output.meta.update(next(iter(reversed(source.nodes))).meta)


def _check_inputs(inputs: tuple[torch.Tensor, ...]) -> None:
    if not inputs:
        raise _refusal("no example input was given")
    for tensor in inputs:
        if tensor.dtype not in (torch.float32, torch.float64) or tensor.ndim < 2 or 0 in tensor.shape:
            raise _refusal(f"an example input is {tensor.dtype} of shape {tuple(tensor.shape)}")


def _branches(error: Exception) -> CaptureRefused:
    """The refusal of code that looks at values; the line is told where torch names it."""
    lines = re.findall(r'File "([^"\n]+)", line (\d+), in \w+\n[ \t]*([^\n]*)', str(error))
    own = [line for line in lines if f"{os.sep}torch{os.sep}" not in line[0]]
    where = f" ({Path(own[-1][0]).name}, line {own[-1][1]}: {own[-1][2][:80]})" if own else ""
    return CaptureRefused(
        f"the module cannot be captured as one graph: what it does depends on values of its samples{where}.",
        field="model",
        remedy="Write torch.where in place of if, and sizes that follow from shapes alone.",
    )


def _refusal(problem: str) -> CaptureRefused:
    return CaptureRefused(
        f"the module cannot be captured as one graph: {problem}.",
        field="model",
        remedy="Give float32 or float64 tensors with a batch axis, and a module that torch.export accepts.",
    )


@contextmanager
def _evaluation_mode(module: torch.nn.Module) -> Iterator[None]:
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, training in modes.items():
            child.training = training


def _require_free_size(program: ExportedProgram, inputs: tuple[torch.Tensor, ...]) -> None:
    """torch.export silently specializes a size that an operator needs."""
    names = set(program.graph_signature.user_inputs)
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    for node, tensor in zip(placeholders, inputs, strict=True):
        if tensor.ndim == 4 and any(isinstance(size, int) for size in node.meta["val"].shape[2:]):
            raise _refusal(f"an operator fixes the height or width of {node.name} (the size cannot be dynamic)")


def _to_graph_module(
    program: ExportedProgram, module: torch.nn.Module, *, share_weights: bool
) -> tuple[fx.GraphModule, dict[str, str]]:
    """The program as a graph module whose weights are attributes under their original names."""
    program = functionalize(program)
    signature = program.graph_signature
    if any(spec.kind is not OutputKind.USER_OUTPUT for spec in signature.output_specs):
        raise _refusal("it changes its own buffers in evaluation mode")
    canonical, aliases = _canonical_names(module)
    held = dict(program.constants) | dict(program.state_dict)
    root = torch.nn.Module()
    graph = fx.Graph()
    mapped: dict[fx.Node, fx.Node] = {}
    unnamed: list[str] = []
    names_in_state = set(module.state_dict())
    specs = {spec.arg.name: spec for spec in signature.input_specs if hasattr(spec.arg, "name")}
    result: Any = None
    assigned: set[str] = set()
    for node in program.graph.nodes:
        if node.op == "placeholder":
            spec = specs[node.name]
            if spec.kind is InputKind.USER_INPUT:
                mapped[node] = graph.placeholder(node.name)
            elif not node.users:
                continue
            elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
                name = canonical.get(str(spec.target), str(spec.target))
                if name not in assigned:
                    trainable = spec.kind is InputKind.PARAMETER
                    tensor = held[str(spec.target)].detach()
                    assign_tensor(root, name, tensor if share_weights else tensor.clone(), trainable=trainable)
                    assigned.add(name)
                    if name not in names_in_state:
                        unnamed.append(name)
                mapped[node] = graph.get_attr(name)
            else:
                raise _refusal(f"it has an input of kind {spec.kind}")
            mapped[node].meta.update(node.meta)
        elif node.op == "output":
            result = node.args[0]
        elif node.op in ("call_function", "get_attr"):
            if node.op == "get_attr":
                users = sorted({str(user.target) for user in node.users})
                raise _refusal(f"it holds a graph of its own within {', '.join(users)}")
            mapped[node] = graph.node_copy(node, lambda argument: mapped[argument])
        else:
            raise _refusal(f"it holds a {node.op} node")
    structure = program.call_spec.out_spec
    flat = [mapped.get(value, value) if isinstance(value, fx.Node) else value for value in result]
    if structure is not None and _is_plain(structure):
        graph.output(pytree.tree_unflatten(flat, structure))
    else:
        graph.output(flat[0] if len(flat) == 1 else tuple(flat))
    graph_module = fx.GraphModule(root, graph)
    graph_module.meta["unnamed_constants"] = tuple(unnamed)
    return graph_module, aliases


def _is_plain(structure: pytree.TreeSpec) -> bool:
    if structure.is_leaf():
        return True
    return structure.type in (tuple, list, dict) and all(_is_plain(child) for child in structure.children())


def _canonical_names(module: torch.nn.Module) -> tuple[dict[str, str], dict[str, str]]:
    """The name to use for each weight, and the further names of tied weights."""
    first: dict[int, str] = {}
    canonical: dict[str, str] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        canonical[name] = first.setdefault(id(tensor), name)
    return canonical, {name: target for name, target in canonical.items() if name != target}
