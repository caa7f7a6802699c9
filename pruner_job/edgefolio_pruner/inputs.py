"""Inputs of a pruning run: the data and a model builder, checked before anything is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import nn

from edgefolio.contract.making_key import making_specification
from edgefolio.errors import UserError
from edgefolio.repository.reading import MAXIMUM_MANIFEST_BYTES
from edgefolio.shown_text import shortened
from edgefolio.specification import Architecture, ModelPortfolio, Normalization, PortfolioSpecification
from edgefolio.specification.making import Source
from edgefolio.untrusted.json_document import require_bounded
from edgefolio_pruner.data import DataBundle, load_data
from edgefolio_pruner.data.bundle import INPUT_NAME
from edgefolio_pruner.data.class_order import class_names_of_model
from edgefolio_pruner.data.model_input import model_input
from edgefolio_pruner.export import evaluating, flat_outputs
from edgefolio_pruner.model_source.loading import (
    build_architecture,
    check_weights_fit,
    read_weights,
    weights_for,
    with_hub_configuration,
)
from edgefolio_pruner.model_source.model_code import code_digest
from edgefolio_pruner.onnx_source.model_file import ModelFile, read_model_file
from edgefolio_pruner.progress import Progress
from edgefolio_pruner.scoring import Scoring, scoring_of
from edgefolio_pruner.scoring.outputs import Outputs, look_at_outputs
from edgefolio_pruner.scoring.scoring import require_k
from edgefolio_pruner.training import state_digest

#: A manifest holds 16,384 characters.
_LONGEST_DESCRIPTION = 4096
#: Bytes of one number of a probe in a manifest.
_PROBE_BYTES = 28
_ARCHITECTURE, _WEIGHTS, _MODEL = "spec.source.architecture", "spec.source.weightsURI", "spec.source.modelURI"
#: Fields of errors about the network: those of its parts, and of what is known of neither.
_ABOUT_THE_MODEL = (_ARCHITECTURE, _WEIGHTS, "model")
_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class MakingSource:
    """A model and its data. ``initial_state`` holds the user's weights, with ``initial_digest``, or is ``None``.

    The model is an ``architecture``, or a ``model_file`` that holds network and weights.
    ``normalization`` is what the user asks for; without it the data alone decide.
    """

    architecture: Architecture | None
    seed: int
    data: DataBundle
    initial_state: Mapping[str, torch.Tensor] | None
    initial_digest: str | None
    normalization: Normalization | None = None
    normalization_of_model: bool = False
    """Whether mean and deviation are those that the model brings."""
    code: str | None = None
    """Digest of the code that builds the network, where it is not Edgefolio's own."""
    notes: tuple[str, ...] = ()
    """What is to be told of model and data."""
    scoring: Scoring = field(default_factory=Scoring)
    """The task, and the metric by which variants are compared."""
    output_names: tuple[str, ...] = ("output",)
    """Names of the outputs in files and in the signature."""
    model_file: ModelFile | None = None
    """The file that the network is built of."""

    def build(self) -> nn.Module:
        """The module as it is before training, the same each time."""
        if self.model_file is not None:
            return self.model_file.build()
        assert self.architecture is not None
        return build_architecture(self.architecture, seed=self.seed)

    def build_with(self, state: Mapping[str, torch.Tensor]) -> nn.Module:
        """The module with these weights, in evaluation mode; it holds the tensors of ``state``, where it can."""
        module = self.build()
        wanted = module.state_dict(keep_vars=True)
        # Weights that are tied would come apart.
        assign = len({id(tensor) for tensor in wanted.values()}) == len(wanted)
        own = {name: tensor.to(wanted[name].dtype) for name, tensor in state.items() if name in wanted}
        del wanted
        module.load_state_dict(own, strict=False, assign=assign)
        return module.eval()

    def example(self, samples: int = 2) -> tuple[torch.Tensor, ...]:
        """The first training samples, as the network is called with them."""
        return tuple(torch.from_numpy(part) for part in self.data.train.inputs(0, samples))

    def calibration(self, samples: int) -> tuple[torch.Tensor, ...]:
        """Unlabelled training samples, as the network is called with them."""
        return tuple(torch.from_numpy(part) for part in self.data.calibration_inputs(samples, seed=self.seed))

    def output_shapes(self, module: nn.Module) -> tuple[tuple[int, ...], ...]:
        """The shape of each output without the batch."""
        with torch.inference_mode(), evaluating(module):
            return tuple(tuple(leaf.shape[1:]) for leaf in flat_outputs(module(*self.example())))

    @property
    def description(self) -> str:
        """The network in one line: ``timm:resnet18(in_chans=1)``, ``onnx:model.onnx``."""
        if self.model_file is not None:
            return self.model_file.description
        assert self.architecture is not None
        options = ", ".join(f"{name}={value}" for name, value in self.architecture.options.items())
        return shortened(f"{self.architecture.library}:{self.architecture.name}({options})", _LONGEST_DESCRIPTION)

    @property
    def record(self) -> dict[str, object]:
        """Common part of all stages' cache keys."""
        # The digests are of raw samples. Left out where unset, so that older keys stay valid.
        asked: dict[str, object] = {}
        if self.normalization is not None:
            asked["normalization"] = self.normalization.model_dump(mode="json")
        elif self.normalization_of_model:
            asked["normalization"] = self.data.preprocessing.model_dump(mode="json", include={"mean", "std"})
        if self.code is not None:
            asked["code"] = self.code
        if self.model_file is not None:
            asked["file"] = self.model_file.record
        if self.architecture is not None:
            asked["architecture"] = self.architecture.model_dump(mode="json")
        if len(self.data.input_names) > 1:
            asked["inputs"] = list(self.data.input_names)
        return {
            **asked,
            "seed": self.seed,
            "weights": self.initial_digest,
            "data": self.data.digests.model_dump(mode="json"),
        }


def load_source(portfolio: ModelPortfolio, *, progress: Progress, scratch: Path | None = None) -> MakingSource:
    """The source that ``portfolio`` names; large data are kept in a file in ``scratch`` while the process lives.

    Raises :class:`UserError` for the field that is at fault.
    """
    spec = portfolio.spec
    if spec.source is None or spec.data is None:
        raise UserError(
            "this portfolio has no source: it follows what others publish, and there is nothing to make.",
            field="spec.source",
            remedy="Add source and data, or use `edgefolio serve` and `edgefolio run`.",
        )
    try:
        # Before hours of work, not after them.
        require_bounded(making_specification(spec))
    except ValueError as error:
        raise UserError(
            f"a manifest cannot record it: {error}.",
            field="spec",
            remedy="Remove control characters and long texts from source, data and methods.",
        ) from error
    network = _network_of(spec.source, seed=spec.seed)
    module, state = network.module, network.state
    own_names = class_names_of_model(module)
    # Weights that were trained elsewhere know the values that they were trained on.
    own_input = (
        None
        if state is None or network.architecture is None
        else model_input(module, library=network.architecture.library, name=network.architecture.name)
    )
    scoring_of(spec.data, classes=0)
    _require_one_input(spec)
    data = load_data(
        spec.data,
        seed=spec.seed,
        model_class_names=own_names,
        model_input=own_input,
        fits=partial(takes, module),
        scratch=scratch,
        progress=progress,
    )
    file = network.model_file
    told: list[str] = []
    if file is not None:
        data = replace(data, input_names=(file.input_name or INPUT_NAME,))
    outputs = look_at_outputs(module, data)
    if file is not None:
        progress(stage="model", fraction=0.5, message="comparing the network with ONNX Runtime")
        file = file.proven(data.sample_shape)
        progress(stage="model", fraction=1.0, message="the network answers as ONNX Runtime does")
        outputs = replace(outputs, names=file.output_names or outputs.names)
        told = file.renamed(data.input_names[0], outputs.names)
    scoring = scoring_of(spec.data, classes=len(data.class_names), threshold=outputs.threshold)
    require_k(scoring, outputs.shapes[0][0] if outputs.shapes[0] else 1)
    _require_labels(spec, data)
    _require_a_probe(outputs, data, variants=spec.selection.max_variants)
    notes = [*network.notes, *told, *data.notes]
    if spec.data.class_names is None and own_names and data.class_names == own_names:
        notes.append("the classes are in the order of the model's own configuration")
    if state is not None and data.test_is_held_out:
        notes.append(
            "the test part is held out of data.trainingURI, which may have trained the given weights: accuracies may "
            "be too high; name samples that they have not seen in data.testURI"
        )
    return MakingSource(
        architecture=network.architecture,
        model_file=file,
        seed=spec.seed,
        data=data,
        initial_state=state,
        initial_digest=None if state is None else state_digest(state),
        normalization=spec.data.normalization,
        normalization_of_model=data.normalization_of_model,
        code=network.code,
        notes=tuple(notes),
        scoring=scoring,
        output_names=outputs.names,
    )


def naming_the_model_file(
    run: Callable[Concatenate[ModelPortfolio, _Given], _Result],
) -> Callable[Concatenate[ModelPortfolio, _Given], _Result]:
    """``run``, whose errors about architecture or weights name ``source.modelURI`` where that holds both."""

    @wraps(run)
    def named(portfolio: ModelPortfolio, /, *args: _Given.args, **keywords: _Given.kwargs) -> _Result:
        try:
            return run(portfolio, *args, **keywords)
        except UserError as error:
            source = portfolio.spec.source
            if source is None or source.model_uri is None or not error.field.startswith(_ABOUT_THE_MODEL):
                raise
            raise type(error)(error.problem, field=_MODEL, value=error.value, remedy=error.remedy) from error

    return named


@dataclass(frozen=True, kw_only=True, eq=False)
class _Network:
    """A network, the digest of its code, the weights that it was given, and what is to be told."""

    module: nn.Module
    architecture: Architecture | None = None
    model_file: ModelFile | None = None
    code: str | None = None
    state: Mapping[str, torch.Tensor] | None = None
    notes: tuple[str, ...] = ()


def _network_of(source: Source, *, seed: int) -> _Network:
    if source.model_uri is not None:
        file = read_model_file(source.model_uri, field=_MODEL)
        module: nn.Module = file.build()
        return _Network(module=module, model_file=file, state=_copied(module))
    assert source.architecture is not None
    architecture = source.architecture
    module = build_architecture(architecture, seed=seed)
    code = code_digest(architecture, module, given_weights=source.weights_uri is not None)
    if source.weights_uri is None:
        return _Network(module=module, architecture=architecture, code=code)
    with_hub_configuration(module, source.weights_uri, library=architecture.library)
    state, told = weights_for(module, read_weights(source.weights_uri), architecture=architecture)
    check_weights_fit(module, state, field=_WEIGHTS, name=source.weights_uri)
    module.load_state_dict(state, strict=False)
    # With names that the file may omit (tied weights, counters): the whole state.
    return _Network(module=module, architecture=architecture, code=code, state=_copied(module), notes=told)


def _copied(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def takes(module: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether ``module`` takes two samples of ``shape``, and gives a row for each."""
    try:
        with torch.inference_mode(), evaluating(module):
            leaves = flat_outputs(module(torch.zeros((2, *shape))))
    except Exception:  # a module may raise anything for an unexpected shape
        return False
    return bool(leaves) and all(leaf.ndim > 0 and len(leaf) == 2 for leaf in leaves)


def _require_one_input(spec: PortfolioSpecification) -> None:
    """Raise :class:`UserError` if something is asked for that knows networks of one input alone."""
    assert spec.data is not None
    if spec.data.inputs is None:
        return
    if spec.source is not None and spec.source.model_uri is not None:
        raise UserError(
            "an ONNX file as the source has one input.",
            field="spec.data.inputs",
            value=", ".join(spec.data.inputs),
            remedy="Leave it out, or give the torch module of a network of several inputs.",
        )
    methods = spec.methods
    asked = {
        "spec.methods.sparseTraining": (methods.sparse_training is not None, "Leave it out, and give weights."),
        "spec.methods.quantization": (methods.quantization != "Disabled", "Leave it out."),
        "spec.methods.split": (bool(methods.split), "Leave it out."),
        "spec.methods.oneShot.distillationEpochs": (
            methods.one_shot is not None and methods.one_shot.distillation_epochs > 0,
            "Leave it out.",
        ),
    }
    for name, (is_asked, remedy) in asked.items():
        if is_asked:
            raise UserError(
                "a network of several inputs is neither trained nor quantized nor divided here.",
                field=name,
                value=f"data.inputs: {', '.join(spec.data.inputs)}",
                remedy=remedy,
            )
    if spec.source is not None and spec.source.weights_uri is None:
        raise UserError(
            "a network of several inputs is not trained here.",
            field="spec.source.weightsURI",
            remedy="Give its trained weights.",
        )


def _require_labels(spec: PortfolioSpecification, data: DataBundle) -> None:
    if data.has_labels:
        return
    if spec.methods.sparse_training is not None:
        raise UserError(
            "the data has no labels, and training needs them.",
            field="spec.methods.sparseTraining",
            remedy="Leave it out and give source.weightsURI, or give data with labels.",
        )
    if spec.selection.min_class_recall_percent is not None:
        raise UserError(
            "the data has no labels, so no class has a recall.",
            field="spec.selection.minClassRecallPercent",
            value=spec.selection.min_class_recall_percent,
            remedy="Leave it out, or give data with labels.",
        )


def _require_a_probe(outputs: Outputs, data: DataBundle, *, variants: int) -> None:
    """The manifest holds a sample and its answer for every variant, as text."""
    values = sum(math.prod(shape) for shape in outputs.shapes) + sum(
        math.prod(shape) for shape in data.input_shapes.values()
    )
    if variants * values * _PROBE_BYTES > MAXIMUM_MANIFEST_BYTES:
        raise UserError(
            f"a sample and its answer are {values} numbers, which a manifest holds for every variant: {variants} are "
            "more than it can.",
            field="spec.selection.maxVariants",
            value=variants,
            remedy=f"Set it to {max(1, MAXIMUM_MANIFEST_BYTES // (values * _PROBE_BYTES))}, or use smaller samples.",
        )
