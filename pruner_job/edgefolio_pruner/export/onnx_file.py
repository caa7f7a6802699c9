"""ONNX file of a module.

The file is what a deployed Triton reads: dynamic batch, opset 18, IR version 8, only the standard domain, weights
inside, checked. Batch norms are folded into the convolution or linear layer before them, in float64, for every model
alike: a shrunk model compared with an unfolded dense one would win by the folding alone. Equal modules with equal
weights give equal bytes, so a digest identifies a variant.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch

from edgefolio.errors import UserError
from edgefolio_pruner.export.adaptive_pools import with_plain_pools
from edgefolio_pruner.export.batch_norm_folding import fold_batch_norms
from edgefolio_pruner.export.evaluation_mode import evaluating
from edgefolio_pruner.export.naming import with_names
from edgefolio_pruner.export.operator_registry import kept_registry
from edgefolio_pruner.export.serialising import SerialisedModel, weight_bytes
from edgefolio_pruner.spatial.graph.dynamic_shapes import dynamic_shapes

#: Operator set and IR version that Triton's onnxruntime backend has read since 2023 (opset 18 came with IR version 8).
DEFAULT_OPSET = 18
IR_VERSION = 8
#: Protobuf cannot hold more than this in one file (bytes).
_PROTOBUF_LIMIT = 2**31 - 1
_LONGEST_CHAIN = 8
#: Smaller files are checked with all their weights; of larger ones weights of more bytes than this are left out.
_CHECKED_WHOLE, _LARGE_WEIGHT = 64 << 20, 1 << 20


@dataclass(frozen=True)
class ExportedModel:
    """One written ONNX file: path, size in bytes, and the versions a reader must support."""

    path: Path
    bytes: int
    opset: int
    ir_version: int
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]


def export_onnx(
    module: torch.nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    path: Path,
    *,
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic_size: bool = False,
    opset: int = DEFAULT_OPSET,
) -> ExportedModel:
    """Write ``module`` in evaluation mode as one self-contained ONNX file.

    ``example_inputs`` are tensors ``[batch, channels, height, width]`` (any rank >= 1; axis 0 is the batch and is
    always dynamic; with ``dynamic_size`` so are all axes from 2 on). The module is not changed. The file appears at
    ``path`` in one rename, so an interrupted export leaves nothing half written.

    Raises ``ValueError`` for a float64 module (onnxruntime has no float64 convolution on a CPU: call ``.float()``).
    Raises :class:`UserError` if the module cannot be expressed in ONNX (the reason is the exporter's), if the result
    needs an operator outside the standard domain, or if it is larger than one file can hold (2 GiB).
    """
    if opset < DEFAULT_OPSET:
        raise UserError(
            "The exporter writes no operator set older than 18.",
            field="opset",
            value=opset,
            remedy="Use 18 (IR version 8), which every Triton since 23.03 reads.",
        )
    if any(tensor.dtype == torch.float64 for tensor in (*module.parameters(), *example_inputs)):
        raise ValueError("export_onnx writes float32: call .float() on the module and the example inputs")
    try:
        with _quiet(), evaluating(module), torch.no_grad():
            model = _converted(module, example_inputs, input_names, output_names, dynamic_size, opset)
    except UserError:
        raise
    except Exception as error:  # the exporter raises many types, all about the user's model
        raise UserError(
            f"The model cannot be written as ONNX: {_reason(error)}",
            field="model",
            value=type(module).__name__,
            remedy="Replace that operator; the file is not written.",
        ) from error
    _normalise(model, output_names=output_names)
    _require_standard_domain(model)
    serialised = _serialised(model)
    written = ExportedModel(
        path=path,
        bytes=serialised.size,
        opset=model.opset_import[0].version,
        ir_version=model.ir_version,
        input_names=tuple(value.name for value in model.graph.input),
        output_names=tuple(value.name for value in model.graph.output),
    )
    _check(model, serialised.size)
    write_atomically(path, serialised.pieces())
    return written


def _converted(
    module: torch.nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic_size: bool,
    opset: int,
) -> onnx.ModelProto:
    """The exporter's ONNX program, with batch norms folded."""
    program = torch.export.export(
        module,
        tuple(_batch_of_two(example) for example in example_inputs),
        dynamic_shapes=dynamic_shapes(module, example_inputs, free_size=[dynamic_size] * len(example_inputs)),
    )
    fold_batch_norms(program)
    program = with_plain_pools(program)

    def converted(inputs: Sequence[str], outputs: Sequence[str]) -> onnx.ModelProto:
        with kept_registry():
            onnx_program = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                input_names=list(inputs),
                output_names=list(outputs),
                optimize=True,
                verbose=False,
            )
        assert onnx_program is not None
        return onnx_program.model_proto

    return with_names(converted, input_names=input_names, output_names=output_names)


def _batch_of_two(example: torch.Tensor) -> torch.Tensor:
    """The example with at least two samples: torch.export takes a size of 1 for a constant."""
    return example if example.shape[0] > 1 else torch.cat([example, example])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's progress log and developer warnings."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _normalise(model: onnx.ModelProto, *, output_names: Sequence[str]) -> None:
    """Drop metadata that differs between machines and exporter versions; set the oldest valid IR version."""
    model.ir_version = IR_VERSION
    model.producer_name = "edgefolio"
    model.producer_version = ""
    model.doc_string = ""
    model.graph.name = "model"
    model.graph.doc_string = ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = ""
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    used = {node.domain for node in model.graph.node}
    kept = [entry for entry in model.opset_import if entry.domain in used or entry.domain == ""]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    for value, name in zip(model.graph.output, output_names, strict=True):
        assert value.name == name, "the exporter keeps the names it was given"


def _require_standard_domain(model: onnx.ModelProto) -> None:
    foreign = sorted(
        {f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in ("", "ai.onnx")}
    )
    foreign += [f"function {function.domain}.{function.name}" for function in model.functions]
    if foreign:
        raise UserError(
            f"The model needs operators outside ONNX's standard domain: {', '.join(foreign[:10])}.",
            field="model",
            remedy="Replace them by standard operators; such a file would not run on a plain Triton.",
        )


def _check(model: onnx.ModelProto, size: int) -> None:
    """Check ``model``, which is of no use afterwards: the checker holds what it is given several times more.

    Of a large model the large weights become inputs of the same names.
    """
    if size > _CHECKED_WHOLE:
        graph = model.graph
        for position in reversed(range(len(graph.initializer))):
            tensor = graph.initializer[position]
            if weight_bytes(tensor) > _LARGE_WEIGHT:
                stands_for = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
                del graph.initializer[position]
                graph.input.append(stands_for)
    onnx.checker.check_model(model, full_check=True)


def _serialised(model: onnx.ModelProto) -> SerialisedModel:
    found = SerialisedModel(model)
    if found.size > _PROTOBUF_LIMIT:
        raise UserError(
            "The model is larger than one ONNX file can hold (2 GiB).",
            field="model",
            value=f"{found.size} bytes",
            remedy="Use a smaller architecture.",
        )
    return found


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write ``content`` (in pieces, perhaps) to ``path`` by a rename: a reader sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.writelines([content] if isinstance(content, bytes) else content)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes the file private; a repository's reader may be another user.
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _reason(error: BaseException) -> str:
    """The operator that the exporter does not know, where that is why; else the first line of its message."""
    texts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(texts) < _LONGEST_CHAIN:
        texts.append(re.sub(r"\x1b\[[0-9;]*m", "", str(cause)))
        cause = cause.__cause__
    operators = dict.fromkeys(re.findall(r"OpOverload\(op='([\w.]+)'", "\n".join(texts)))
    operators |= dict.fromkeys(re.findall(r"target=torch\.ops\.([\w.]+)\]", "\n".join(texts)))
    if operators:
        return f"it has no operator for {next(iter(operators))}."
    lines = [line.strip() for line in texts[0].splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
