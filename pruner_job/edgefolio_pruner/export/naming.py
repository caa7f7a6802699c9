"""Names of a file's inputs and outputs that values within its graph have already: those within give way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import onnx

__all__ = ["with_names"]


def with_names(
    converted: Callable[[Sequence[str], Sequence[str]], onnx.ModelProto],
    *,
    input_names: Sequence[str],
    output_names: Sequence[str],
) -> onnx.ModelProto:
    """The model that ``converted`` gives for these names of inputs and outputs, with every name given once.

    The exporter calls values after operators and weights (``relu``, ``fc.weight``), and looks at no other names.
    """
    model = converted(input_names, output_names)
    defined = Counter(value.name for value in (*model.graph.input, *model.graph.initializer))
    defined.update(name for node in model.graph.node for name in node.output if name)
    if max(defined.values(), default=1) == 1:
        return model
    # Which of the two a node means can no longer be told: once more, under names that nobody has.
    places = [
        [f"edgefolio.{kind}.{number}" for number in range(len(names))]
        for kind, names in (("input", input_names), ("output", output_names))
    ]
    model = converted(*places)
    outer = dict(zip([*places[0], *places[1]], [*input_names, *output_names], strict=True))
    _rename(model.graph, outer)
    return model


def _rename(graph: onnx.GraphProto, outer: dict[str, str]) -> None:
    inner = {name for node in graph.node for name in (*node.input, *node.output)}
    inner = (inner | {tensor.name for tensor in graph.initializer}) - outer.keys()
    renamed = dict(outer)
    for name in sorted(inner & {*outer.values()}):
        number = 1
        while f"{name}_{number}" in inner | {*outer.values()} | {*renamed.values()}:
            number += 1
        renamed[name] = f"{name}_{number}"
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = renamed.get(name, name)
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = renamed.get(value.name, value.name)
