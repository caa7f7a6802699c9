"""Candidate maker: exact pruning with its proof, ONNX with its parity, probe and accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from pydantic import Field

from edgefolio import __version__
from edgefolio.errors import EdgefolioError
from edgefolio.manifest import (
    Accuracy,
    ClassFigures,
    ExactnessProof,
    LayerKept,
    ParityProof,
    Probe,
    QuantizationRecord,
    Record,
    ScoreFigures,
)
from edgefolio.repository.fetching import digest_of_file
from edgefolio_pruner.available_memory import give_back
from edgefolio_pruner.exactness import prove_exact
from edgefolio_pruner.export import export_onnx, parity
from edgefolio_pruner.inputs import MakingSource
from edgefolio_pruner.methods import DENSE, CandidateWeights
from edgefolio_pruner.methods.given_weights import given_weights
from edgefolio_pruner.progress import Progress, part_of
from edgefolio_pruner.scoring import Judge
from edgefolio_pruner.scoring.judge import FAST_BATCH
from edgefolio_pruner.spatial import compress, count_macs
from edgefolio_pruner.stages.graph_cache import GraphCache
from edgefolio_pruner.stages.probe import LARGEST_PROBE, make_probe, probe_samples
from edgefolio_pruner.work.directory import WorkDirectory

PARITY_SAMPLES = 256
_EXACTNESS_SAMPLES = 128
#: An exported file may differ by this part of the largest logit, and must agree on nearly every sample.
PARITY_RELATIVE_BOUND = 1e-3
PARITY_LEAST_AGREEMENT_PERCENT = 99.0
#: Raised with each field that a stored candidate gains: one without it is made again.
STORED_RECORD = 2
_STAGE = "candidates"
_CLASSIFYING = ("Classification", "Segmentation")


class CandidateRecord(Record):
    """A stored candidate: a manifest's variant without rank, profile and test accuracy."""

    name: str
    parent: str | None
    method: str
    settings: dict[str, Any]
    state_digest: str
    sha256: str
    size_bytes: int
    opset: int
    ir_version: int
    parameters: int
    macs: int
    outputs: int
    validation_accuracy: Accuracy
    validation_classes: ClassFigures | None
    parity: ParityProof
    exactness: ExactnessProof | None
    layers: tuple[LayerKept, ...]
    precision: Literal["Float32", "Int8"] = "Float32"
    quantization: QuantizationRecord | None = None
    probe: Probe
    validation_score: Annotated[ScoreFigures | None, Field(exclude_if=lambda value: value is None)] = None
    #: Shape of each output without the batch, where it is not one vector.
    output_shapes: Annotated[tuple[tuple[int, ...], ...], Field(exclude_if=lambda value: not value)] = ()


class CandidateMaker:
    """Makes candidates of one source."""

    def __init__(
        self, source: MakingSource, graphs: GraphCache, *, work: WorkDirectory, threads: int, batch: int = FAST_BATCH
    ) -> None:
        """``batch`` is the size of batches in which accuracy is measured."""
        self._source, self._graphs, self._work, self._threads = source, graphs, work, threads
        self._batch = batch
        self.judge = Judge(scoring=source.scoring, data=source.data, threads=threads, batch=batch)

    def make(self, weights: Sequence[CandidateWeights], *, progress: Progress) -> list[tuple[CandidateRecord, Path]]:
        """The candidate of each of ``weights`` with its ONNX file. Raises if one fails its proof or parity."""
        made = []
        if self._source.scoring.needs_dense:
            dense = next((given for given in weights if given.name == DENSE), None)
            dense = dense or given_weights(self._source, self._work)
            self.judge = self.judge.compared_with(dense.digest)
            self._make(dense, progress)
        for position, given in enumerate(weights):
            part = part_of(progress, start=position / len(weights), end=(position + 1) / len(weights))
            made.append(self._make(given, part))
        return made

    def _make(self, given: CandidateWeights, progress: Progress) -> tuple[CandidateRecord, Path]:
        key = {
            **self._source.record,
            "state": given.digest,
            "name": given.name,
            "method": given.method,
            "settings": dict(given.settings),
            "edgefolio": __version__,
            "torch": torch.__version__,
            "onnxruntime": onnxruntime.__version__,
            "record": STORED_RECORD,
            **({} if self._batch == FAST_BATCH else {"batch": self._batch}),
            **self.judge.key,
        }
        path = self._work.folder(f"candidate-{given.name}", key) / "model.onnx"
        if given.name == DENSE and self._source.scoring.needs_dense:
            self.judge = self.judge.beside(path)

        def usable(value: Any) -> bool:
            return path.is_file() and digest_of_file(path) == value["sha256"]

        value = self._work.result(
            f"candidate-{given.name}",
            key,
            lambda: self._build(given, path, progress).model_dump(mode="json", by_alias=True),
            usable=usable,
        )
        return CandidateRecord.model_validate(value), path

    def _build(self, given: CandidateWeights, path: Path, progress: Progress) -> CandidateRecord:
        source = self._source
        progress(stage=_STAGE, fraction=0.0, message=f"{given.name}: pruning exactly")
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        # What training and pruning have freed; a proof holds the network several times over.
        give_back()
        try:
            exactness: ExactnessProof | None = None
            layers: tuple[LayerKept, ...] = ()
            if given.name == DENSE:
                module: torch.nn.Module = source.build_with(given.load())
                macs = count_macs(module, tuple(source.data.input_shapes.values()))
            else:
                module, exactness, layers, macs = self._prune(given.name, given.load())
            progress(stage=_STAGE, fraction=0.4, message=f"{given.name}: writing ONNX")
            exported = export_onnx(
                module,
                source.example(),
                path,
                input_names=source.data.input_names,
                output_names=source.output_names,
            )
            progress(stage=_STAGE, fraction=0.6, message=f"{given.name}: parity and accuracy")
            proof = self._prove_parity(given.name, module, path)
            shapes = source.output_shapes(module)
        finally:
            torch.set_num_threads(before)
        validation = source.data.validation
        measured = self.judge.measure(path, "validation")
        return CandidateRecord(
            name=given.name,
            parent=given.parent,
            method=given.method,
            settings=dict(given.settings) | ({} if given.seconds is None else {"seconds": round(given.seconds, 1)}),
            state_digest=given.digest,
            sha256=digest_of_file(path),
            size_bytes=exported.bytes,
            opset=exported.opset,
            ir_version=exported.ir_version,
            parameters=_stored_numbers(module),
            macs=macs,
            outputs=shapes[0][0] if shapes[0] else 1,
            output_shapes=() if len(shapes) == 1 and len(shapes[0]) == 1 else shapes,
            validation_accuracy=measured.accuracy,
            validation_classes=measured.classes,
            validation_score=measured.score,
            parity=proof,
            exactness=exactness,
            layers=layers,
            probe=make_probe(
                path,
                dict(zip(source.data.input_names, probe_samples(validation.inputs(0, LARGEST_PROBE)), strict=True)),
                output_names=source.output_names,
                threads=self._threads,
            ),
        )

    def _prune(
        self, name: str, state: dict[str, torch.Tensor]
    ) -> tuple[torch.nn.Module, ExactnessProof, tuple[LayerKept, ...], int]:
        captured = self._graphs.model.with_state(state)
        compressed = compress(captured)
        validation = self._source.data.validation
        samples = tuple(torch.from_numpy(given) for given in validation.inputs(0, _EXACTNESS_SAMPLES))
        exactness = prove_exact(self._source.build_with(state), captured, compressed, samples)
        exactness.require(name)
        layers = tuple(
            LayerKept(name=layer.name, before=layer.before, after=layer.after) for layer in compressed.report.layers
        )
        return compressed.module, exactness.record(), layers, compressed.report.macs_after

    def _prove_parity(self, name: str, module: torch.nn.Module, path: Path) -> ParityProof:
        found = parity(module, path, parity_samples(self._source), batch=64, threads=self._threads)
        agreement = 100 * found.top1_agreement
        # The largest of several numbers that are no classes may change for nothing.
        least = PARITY_LEAST_AGREEMENT_PERCENT if self._source.scoring.task in _CLASSIFYING else 0.0
        # Written so that a NaN breaks the bound.
        if not (found.relative_difference <= PARITY_RELATIVE_BOUND and agreement >= least):
            raise EdgefolioError(
                f"The ONNX file of {name!r} does not give the torch model's answers: it differs by up to "
                f"{found.max_abs_difference:.3g} (largest logit {found.max_abs_logit:.3g}) and agrees on "
                f"{agreement:.1f} % of {found.samples} samples. Nothing is published."
            )
        return ParityProof(
            max_absolute_difference=found.max_abs_difference,
            max_absolute_logit=found.max_abs_logit,
            top1_agreement_percent=agreement,
            samples=found.samples,
        )


def parity_samples(source: MakingSource) -> tuple[npt.NDArray[np.float32], ...]:
    """Validation samples; a small part is filled up from the training samples (labels don't matter here)."""
    validation = source.data.validation.inputs(0, PARITY_SAMPLES)
    more = source.data.train.inputs(0, PARITY_SAMPLES - len(validation[0]))
    return tuple(np.concatenate(parts) for parts in zip(validation, more, strict=True))


def _stored_numbers(module: torch.nn.Module) -> int:
    """Count of stored numbers: weights and running statistics, tied weights under each of their names."""
    return sum(tensor.numel() for tensor in module.state_dict().values() if tensor.is_floating_point())
