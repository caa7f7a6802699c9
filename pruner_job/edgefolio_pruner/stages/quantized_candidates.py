"""Quantized twins of candidates: each is a candidate of its own, with its float parent's file to compare with."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from edgefolio import __version__
from edgefolio.manifest import FloatLayer, Profile, QuantizationRecord
from edgefolio.repository.fetching import digest_of_file
from edgefolio.specification import ModelPortfolio, Quantization
from edgefolio_pruner.export.onnx_file import write_atomically
from edgefolio_pruner.inputs import MakingSource
from edgefolio_pruner.progress import Progress, part_of
from edgefolio_pruner.quantization import Refusal, Twin, compare_files, make_twin, require_calibration
from edgefolio_pruner.quantization.calibration import Samples
from edgefolio_pruner.scoring import Judge, Measured
from edgefolio_pruner.scoring.judge import FAST_BATCH
from edgefolio_pruner.stages.candidates import (
    STORED_RECORD,
    CandidateRecord,
    parity_samples,
)
from edgefolio_pruner.stages.probe import LARGEST_PROBE, make_int8_probe
from edgefolio_pruner.work.directory import WorkDirectory


@dataclass(frozen=True, kw_only=True)
class Twins:
    """The twins with their files, and why other candidates have none, by the name that the twin would have."""

    made: tuple[tuple[CandidateRecord, Path], ...]
    refused: dict[str, str]


def quantization_of(portfolio: ModelPortfolio) -> Quantization | None:
    """The quantization that ``portfolio`` asks for."""
    wanted = portfolio.spec.methods.quantization
    return wanted if isinstance(wanted, Quantization) else None


def twin_name(parent: str) -> str:
    """The name of the quantized twin of ``parent``."""
    return f"{parent}-int8"


class TwinMaker:
    """Makes the twins of one source's candidates. Raises :class:`UserError` if the data cannot calibrate any."""

    def __init__(self, source: MakingSource, settings: Quantization, *, work: WorkDirectory, threads: int) -> None:
        self._source, self._settings, self._work, self._threads = source, settings, work, threads
        require_calibration(self._calibration)

    def make(self, parents: Sequence[tuple[CandidateRecord, Path]], *, judge: Judge, progress: Progress) -> Twins:
        """The twin of each of ``parents``, or why it has none, by the scores of ``judge``."""
        self._judge = judge
        made, refused = [], {}
        for position, (parent, path) in enumerate(parents):
            part = part_of(progress, start=position / len(parents), end=(position + 1) / len(parents))
            found = self._make(parent, path, part)
            if isinstance(found, str):
                refused[twin_name(parent.name)] = found
            else:
                made.append(found)
        return Twins(made=tuple(made), refused=refused)

    def _make(
        self, parent: CandidateRecord, parent_path: Path, progress: Progress
    ) -> tuple[CandidateRecord, Path] | str:
        name = twin_name(parent.name)
        key = {
            **self._source.record,
            "parent": parent.sha256,
            "name": name,
            "settings": self._settings.model_dump(mode="json"),
            "threads": self._threads,
            **({} if self._judge.batch == FAST_BATCH else {"batch": self._judge.batch}),
            **self._judge.key,
            "record": STORED_RECORD,
            "edgefolio": __version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        }
        path = self._work.folder(f"twin-{name}", key) / "model.onnx"

        def usable(value: Any) -> bool:
            return "refused" in value or (path.is_file() and digest_of_file(path) == value["sha256"])

        def build() -> dict[str, Any]:
            progress(stage="quantization", fraction=0.0, message=f"{name}: quantizing")
            twin = make_twin(
                parent_path.read_bytes(),
                calibration=self._calibration,
                accuracy_percent=lambda content: self._measured(content).accuracy.percent,
                max_loss_points=float(self._settings.max_accuracy_loss_points),
                threads=self._threads,
                progress=progress,
            )
            if isinstance(twin, Refusal):
                return {"refused": twin.reason}
            return self._record(twin, parent, parent_path, path).model_dump(mode="json", by_alias=True)

        value = self._work.result(f"twin-{name}", key, build, usable=usable)
        return value["refused"] if "refused" in value else (CandidateRecord.model_validate(value), path)

    def _record(self, twin: Twin, parent: CandidateRecord, parent_path: Path, path: Path) -> CandidateRecord:
        write_atomically(path, twin.content)
        validation, measured = self._source.data.validation, self._measured(twin.content)
        return CandidateRecord(
            name=twin_name(parent.name),
            parent=parent.name,
            method="int8 quantization",
            settings={},
            state_digest=parent.state_digest,
            sha256=digest_of_file(path),
            size_bytes=len(twin.content),
            opset=parent.opset,
            ir_version=parent.ir_version,
            parameters=parent.parameters,
            macs=parent.macs,
            outputs=parent.outputs,
            validation_accuracy=measured.accuracy,
            validation_classes=measured.classes,
            validation_score=measured.score,
            output_shapes=parent.output_shapes,
            parity=compare_files(parent_path, path, parity_samples(self._source)[0], threads=self._threads),
            exactness=None,
            layers=parent.layers,
            precision="Int8",
            quantization=QuantizationRecord(
                float_parent=parent.name,
                calibration_samples=len(self._calibration),
                accuracy_loss_points=twin.loss_points,
                max_accuracy_loss_points=float(self._settings.max_accuracy_loss_points),
                int8_layers=len(twin.int8_layers),
                float_layers=tuple(FloatLayer(name=layer.name, residual=layer.residual) for layer in twin.float_layers),
                equalized=twin.equalized,
            ),
            probe=make_int8_probe(
                path,
                validation.images[:LARGEST_PROBE],
                input_name=self._source.data.input_names[0],
                output_names=self._source.output_names,
                threads=self._threads,
            ),
        )

    @cached_property
    def _calibration(self) -> Samples:
        return self._source.data.calibration(self._settings.calibration_samples, seed=self._source.seed)

    def _measured(self, content: bytes) -> Measured:
        with tempfile.TemporaryDirectory(prefix="edgefolio-quantize-") as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(content)
            return self._judge.measure(path, "validation")


def slower_twins(
    candidates: Sequence[CandidateRecord], profiles: Mapping[str, Profile], *, batch: int
) -> dict[str, str]:
    """The twins that are not faster than their float parents on this machine, and the figures as a reason."""
    found = {}
    for twin in candidates:
        if twin.quantization is None or twin.name not in profiles or twin.quantization.float_parent not in profiles:
            continue
        own, parent = (profiles[name].latency(batch) for name in (twin.name, twin.quantization.float_parent))
        assert own is not None
        assert parent is not None
        if own.p50_milliseconds >= parent.p50_milliseconds:
            found[twin.name] = (
                f"it is no faster on this processor than {twin.quantization.float_parent}, its float parent: "
                f"{own.p50_milliseconds:.2f} ms against {parent.p50_milliseconds:.2f} ms"
            )
    return found
