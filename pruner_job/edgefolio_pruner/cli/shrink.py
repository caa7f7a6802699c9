"""``edgefolio shrink``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from edgefolio.commands.terminal import Terminal
from edgefolio.errors import UserError

if TYPE_CHECKING:
    from torch.nn import Module

    from edgefolio_pruner.shrinking import Shrunk

#: As a manifest may record them.
_MOST_AXES, _LARGEST_SIZE = 8, 2**24
_INPUT_NAME = "[A-Za-z_][A-Za-z0-9_]{0,62}"
#: Name (empty if none is given) and shape of one sample of an input.
Input = tuple[str, tuple[int, ...]]


def shrink(
    weights: str | None = typer.Option(
        None, help="The sparse weights: a safetensors file, by path or URL (s3://, https://)."
    ),
    input_shape: list[str] = typer.Option(
        [],
        help="Shape of one input without the batch, such as 3,224,224; of a model that takes several once for each, in "
        "the order of its arguments, also as NAME=SHAPE. Default: as the ONNX file says.",
    ),
    output: Path = typer.Option(..., "--output", "-o", help="The ONNX file to write."),
    architecture: str | None = typer.Option(
        None, help="LIBRARY:NAME, such as timm:resnet18, torchvision:vgg11_bn or edgefolio:resnet8."
    ),
    factory: str | None = typer.Option(None, help="MODULE:CALLABLE that returns the torch module, in place of a name."),
    model: str | None = typer.Option(
        None, help="A sparse model in one ONNX file, by path or URL, in place of architecture and weights."
    ),
    option: list[str] = typer.Option([], help="NAME=VALUE for the architecture, such as num_classes=10; repeatable."),
    dynamic_size: bool = typer.Option(False, help="Let the file take any height and width."),
    samples: int = typer.Option(
        8, min=2, max=65536, help="Random inputs on which the file is compared with the model."
    ),
    latency_samples: int = typer.Option(
        30, min=0, max=65536, help="Runs of each model to measure its latency; 0 skips that."
    ),
    threads: int = typer.Option(1, min=1, max=256, help="Threads for measuring the latency."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object to standard output, no table."),
) -> None:
    """Make a sparse model small: remove every channel that provably does not matter, and write ONNX.

    The outputs stay the same up to rounding, which is proven before the file is written. No data and no training.

    Example: edgefolio shrink --architecture timm:resnet18 --option num_classes=10 --weights sparse.safetensors
    --input-shape 3,224,224 --output shrunk.onnx
    """
    _require_one_model(architecture=architecture, factory=factory, model=model, weights=weights, options=option)
    given = [_parse_input(text) for text in input_shape]
    if output.is_dir():
        raise UserError("this is a directory.", field="--output", value=output, remedy="Name a file in it.")
    from edgefolio_pruner.available_memory import require_memory
    from edgefolio_pruner.cli.json_output import output_kept_for_json
    from edgefolio_pruner.cli.progress_display import shown_progress
    from edgefolio_pruner.shrinking import shrink_model

    needed = 4 * samples * sum(math.prod(shape) for _, shape in given)
    require_memory(needed, what="the input", field="--input-shape", value=" ".join(input_shape))
    # The network's own code may print.
    with output_kept_for_json(active=as_json) as print_document:
        output_names: tuple[str, ...] = ()
        if model is not None:
            module, given, output_names = _of_file(model, given, samples=samples, threads=threads)
            field = "--model"
        else:
            assert weights is not None
            _require_shape(given)
            field = "--architecture" if architecture else "--factory"
            module = _of_architecture(architecture or f"factory:{factory}", option, weights, field=field)
        with shown_progress(Terminal(stderr=True, highlight=False)) as progress:
            result = shrink_model(
                module,
                input_shapes=_named(module, given, field="--input-shape"),
                output_names=output_names,
                output=output,
                dynamic_size=dynamic_size,
                samples=samples,
                latency_samples=latency_samples,
                threads=threads,
                field=field,
                progress=progress,
            )
        if as_json:
            print_document(json.dumps(_document(result), indent=2))
    if not as_json:
        _print(result)


def _require_one_model(
    *, architecture: str | None, factory: str | None, model: str | None, weights: str | None, options: list[str]
) -> None:
    if sum(given is not None for given in (architecture, factory, model)) != 1:
        raise UserError(
            "exactly one of --architecture, --factory and --model is needed.",
            field="--architecture",
            value=architecture,
            remedy="Name an architecture such as timm:resnet18, a callable such as nets:build, or an ONNX file.",
        )
    if model is None and weights is None:
        raise UserError(
            "the weights are missing.", field="--weights", remedy="Name a safetensors file, or use --model."
        )
    if model is not None and (weights is not None or options):
        raise UserError(
            "an ONNX file holds network and weights.",
            field="--model",
            value=model,
            remedy="Leave out --weights and --option.",
        )


def _of_architecture(name: str, options: list[str], weights: str, *, field: str) -> Module:
    from edgefolio.repository.storage import checked_argument
    from edgefolio_pruner.model_source.loading import build_architecture, load_weights, parse_architecture

    architecture = parse_architecture(name, options, field=field)
    module = build_architecture(architecture, field=field)
    load_weights(module, checked_argument(weights, field="--weights"), architecture=architecture, field="--weights")
    return module


def _of_file(
    uri: str, given: list[Input], *, samples: int, threads: int
) -> tuple[Module, list[Input], tuple[str, ...]]:
    """The network in an ONNX file, the shape of its samples, and its outputs as the file names them."""
    from edgefolio.repository.storage import checked_argument
    from edgefolio_pruner.available_memory import require_memory
    from edgefolio_pruner.onnx_source.model_file import read_model_file

    if len(given) > 1:
        raise UserError(
            "an ONNX file as the source has one input.",
            field="--input-shape",
            value=" ".join(name or ",".join(map(str, shape)) for name, shape in given),
            remedy="Give one shape, or none.",
        )
    file = read_model_file(checked_argument(uri, field="--model"), field="--model")
    if not given and file.sample_shape is not None:
        given = [("", file.sample_shape)]
    _require_shape(given)
    ((name, shape),) = given
    shown = ",".join(str(size) for size in shape)
    require_memory(4 * samples * math.prod(shape), what="the input", field="--input-shape", value=shown)
    given = [(name or file.input_name or "", shape)]
    names = file.output_names or ()
    return file.proven(shape, threads=threads).build(), given, () if given[0][0] in names else names


def _require_shape(given: list[Input]) -> None:
    if not given:
        raise UserError(
            "the shape of a sample is not known.", field="--input-shape", remedy="Write for example 3,224,224."
        )


def _why_nothing(result: Shrunk) -> str:
    if not result.dead_filters:
        return "No channel could be removed: no filter of these weights is dead."
    return (
        f"No channel could be removed, though {result.dead_filters} filters are dead: what they give is a constant "
        "that has to be kept for what reads it, as the last column and the barriers say."
    )


def _parse_input(text: str) -> Input:
    """Name (empty if none is given) and shape."""
    name, separator, shape = text.rpartition("=")
    if separator and not re.fullmatch(_INPUT_NAME, name):
        raise UserError(
            "this is no name of an input: a letter, then letters, digits and underscores.",
            field="--input-shape",
            value=text,
            remedy="Write for example image=3,224,224.",
        )
    return name, _parse_shape(shape)


def _named(module: Any, given: Sequence[Input], *, field: str) -> dict[str, tuple[int, ...]]:
    """The shapes by name: as given, else ``input``, or of several the names of the arguments."""
    from edgefolio_pruner.scoring.outputs import input_names

    found = {name or own: shape for (name, shape), own in zip(given, input_names(module, len(given)), strict=True)}
    if len(found) < len(given):
        raise UserError(
            "two inputs have one name.", field=field, value=", ".join(found), remedy="Name each: NAME=SHAPE."
        )
    return found


def _parse_shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(size) for size in text.split(","))
    except ValueError:
        shape = ()
    if not 0 < len(shape) <= _MOST_AXES or any(not 0 < size <= _LARGEST_SIZE for size in shape):
        raise UserError(
            f"this is no shape: at most {_MOST_AXES} whole numbers from 1 to {_LARGEST_SIZE}, separated by commas.",
            field="--input-shape",
            value=text,
            remedy="Write for example 3,224,224.",
        )
    return shape


def _document(result: Shrunk) -> dict[str, Any]:
    report = result.report
    latency = {name: profile.latencies[0] for name, profile in result.profiles.items()}
    return {
        "output": str(result.after.path),
        "layers": [
            {
                "name": layer.name,
                "before": layer.before,
                "after": layer.after,
                "removedZeroOrUnread": layer.removed_zero,
                "removedConstant": layer.folded_constant,
                "removedMerged": layer.merged_border,
                "keptBecause": layer.kept_because,
            }
            for layer in report.layers
        ],
        "barriers": [
            {"operator": barrier.operator, "where": barrier.where, "reason": barrier.reason}
            for barrier in report.barriers
        ],
        "channelsRemoved": report.channels_removed,
        "parameters": {"before": report.parameters_before, "after": report.parameters_after},
        "macs": {"before": report.macs_before, "after": report.macs_after},
        "bytes": {"before": result.before.bytes, "after": result.after.bytes},
        "exactness": {
            "float64RelativeDifference": result.exactness.float64_difference,
            "float32RelativeDifference": result.exactness.float32_difference,
            "float32Bound": result.exactness.float32_bound,
            "samples": result.exactness.samples,
        },
        "parity": {
            "maxAbsDifference": result.parity.max_abs_difference,
            "maxAbsOutput": result.parity.max_abs_logit,
            "top1Agreement": result.parity.top1_agreement,
            "samples": result.parity.samples,
        },
        "latency": {
            "batchSize": 1,
            "threads": result.threads,
            "p50Milliseconds": {name: value.p50_milliseconds for name, value in latency.items()},
            "samples": {name: value.samples for name, value in latency.items()},
        }
        if latency
        else None,
        "onnx": {"opset": result.after.opset, "irVersion": result.after.ir_version},
    }


def _print(result: Shrunk) -> None:
    console = Terminal(highlight=False)
    report = result.report
    table = Table(title="Channels of each layer")
    table.add_column("layer", no_wrap=True)
    for heading in ("before", "after"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("removed")
    table.add_column("the rest stays because")
    for layer in report.layers:
        removed = {
            "zero or unread": layer.removed_zero,
            "constant": layer.folded_constant,
            "merged": layer.merged_border,
        }
        shown = ", ".join(f"{reason}: {count}" for reason, count in removed.items() if count)
        table.add_row(layer.name, str(layer.before), str(layer.after), shown or "-", layer.kept_because or "-")
    console.print(table)
    for barrier in report.barriers:
        console.print(f"barrier: {barrier.operator} in {barrier.where}: {barrier.reason}", markup=False, soft_wrap=True)
    sizes = Table()
    sizes.add_column("")
    for heading in ("before", "after", "after / before"):
        sizes.add_column(heading, justify="right", no_wrap=True)
    rows: list[tuple[str, float, float, str]] = [
        ("MACs per sample", report.macs_before, report.macs_after, "{:,.0f}"),
        ("parameters", report.parameters_before, report.parameters_after, "{:,.0f}"),
        ("ONNX file, bytes", result.before.bytes, result.after.bytes, "{:,.0f}"),
    ]
    if result.profiles:
        medians = {name: profile.latencies[0].p50_milliseconds for name, profile in result.profiles.items()}
        label = f"latency, ms (median, batch 1, threads {result.threads})"
        rows.append((label, medians["before"], medians["after"], "{:,.2f}"))
    for label, before, after, style in rows:
        sizes.add_row(label, style.format(before), style.format(after), f"{after / before:.3f}" if before else "-")
    console.print(sizes)
    exactness, parity = result.exactness, result.parity
    console.print(
        f"Exact: float64 outputs differ by {exactness.float64_difference:.1e} of the largest, the ONNX file's from the "
        f"sparse model's by {parity.relative_difference:.1e}; top-1 agrees on {100 * parity.top1_agreement:g} % of "
        f"{parity.samples} random inputs.",
        soft_wrap=True,
    )
    if report.channels_removed == 0:
        console.print(_why_nothing(result), soft_wrap=True)
    console.print(f"Written: {result.after.path}", markup=False, soft_wrap=True)
