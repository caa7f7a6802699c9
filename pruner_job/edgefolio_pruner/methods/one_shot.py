"""One-shot pruning as a method: weights for each entry of ``macsPercent`` and ``latencyPercent``, without training."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import onnxruntime
import safetensors.torch
import torch

from edgefolio.contract.work_pieces import LATENCY, latency_candidate, one_shot_piece
from edgefolio.files import write_durably
from edgefolio.specification import ModelPortfolio, OneShot
from edgefolio_pruner.available_memory import memory_to_plan_with, told_memory
from edgefolio_pruner.methods.base import CandidateWeights, Method, Workbench
from edgefolio_pruner.network_inputs import Samples
from edgefolio_pruner.oneshot import (
    OneShotResult,
    layers_to_time,
    least_share,
    prune_to_latencies,
    prune_to_targets,
)
from edgefolio_pruner.oneshot.distillation import distill
from edgefolio_pruner.profiling.layer_times import LayerTimes, measure_layer_times
from edgefolio_pruner.progress import part_of
from edgefolio_pruner.spatial import CapturedModel
from edgefolio_pruner.training import state_digest
from edgefolio_pruner.work.directory import WorkDirectory

#: Part of the free memory for variants that are made together.
_SHARE_OF_VARIANTS = 4


class OneShotMethod(Method):
    """``methods.oneShot``. Each entry of ``macsPercent`` is a piece, and a candidate of the same name.

    All entries of ``latencyPercent`` are one piece: its table of times is measured once, and kept.
    """

    stage = "one-shot"
    products = "pruned models"

    def __init__(self, specification: OneShot, *, calibration_samples: int, batch: int, timing_threads: int) -> None:
        self._macs = {one_shot_piece(percent): percent for percent in specification.macs_percent}
        self._latencies = tuple(dict.fromkeys(specification.latency_percent))
        self._distillation_epochs = specification.distillation_epochs
        self._calibration_samples = calibration_samples
        self._timing = {"batch": batch, "threads": timing_threads}

    @classmethod
    def asked_for(cls, portfolio: ModelPortfolio) -> Self | None:
        """The method if ``methods.oneShot`` is there."""
        spec = portfolio.spec
        if spec.methods.one_shot is None:
            return None
        assert spec.data is not None
        return cls(
            spec.methods.one_shot,
            calibration_samples=spec.data.calibration_samples,
            batch=spec.profiling.batch_sizes[-1],
            timing_threads=spec.profiling.threads,
        )

    def pieces(self) -> tuple[str, ...]:
        """One piece for all entries of ``latencyPercent``, and one per entry of ``macsPercent``."""
        return (*((LATENCY,) if self._latencies else ()), *self._macs)

    def require_possible(self, captured: CapturedModel) -> tuple[str, ...]:
        """Which shares cannot be reached."""
        least = least_share(captured)
        beyond = sorted({percent for percent in self._macs.values() if percent < least.percent - 0.05})
        if not beyond:
            return ()
        others = ", ".join(f"{name}: {reason}" for name, reason in list(least.left_out.items())[:3])
        return (
            f"oneShot.macsPercent {', '.join(map(str, beyond))} cannot be reached: at least {least.percent:.1f} % of "
            f"the multiply-accumulates stay, since {len(least.left_out)} groups of channels are not pruned ({others})",
        )

    def make(
        self, bench: Workbench, *, dense: CandidateWeights | None, pieces: Collection[str]
    ) -> tuple[CandidateWeights, ...]:
        """Missing pieces of ``macsPercent`` are made together: this shares their common work and changes no bit."""
        assert dense is not None
        source, samples = bench.source, self._calibration_samples
        common = {
            **source.record,
            "dense": dense.digest,
            "calibrationSamples": samples,
            "threads": bench.threads,
            "torch": torch.__version__,
        }
        if (limit := told_memory()) is not None:
            # It decides how many samples are used, and how wide maps are selected.
            common["memory"] = limit
        made: list[CandidateWeights] = []
        if LATENCY in pieces and self._latencies:
            made += self._by_latency(bench, dense, common)
        shelves = {
            percent: _Shelf(bench.work, name, f"one-shot-{percent}", common | {"macsPercent": percent})
            for name, percent in self._macs.items()
            if name in pieces
        }
        records = {percent: shelf.kept() for percent, shelf in shelves.items()}
        missing = [percent for percent, record in records.items() if record is None]
        if missing:
            module = source.build_with(dense.load())
            calibration = source.calibration(samples)
            together = _together(module)
            for start in range(0, len(missing), together):
                stop = min(start + together, len(missing))
                results = prune_to_targets(
                    module=module,
                    calibration=calibration,
                    macs_percents=missing[start:stop],
                    seed=source.seed,
                    threads=bench.threads,
                    progress=part_of(bench.progress, start=start / len(missing), end=stop / len(missing)),
                )
                for result in results:
                    records[result.percent] = shelves[result.percent].keep(result, {"macsPercent": result.percent})
        made += [shelves[percent].weights(record, dense) for percent, record in records.items() if record is not None]
        _tell(bench, made)
        if self._distillation_epochs:
            made = [self._distilled(bench, dense, pruned, common) for pruned in made]
        return tuple(made)

    def _distilled(
        self, bench: Workbench, dense: CandidateWeights, pruned: CandidateWeights, common: Mapping[str, Any]
    ) -> CandidateWeights:
        """``pruned`` after it has learned the dense model's answers; from where a killed run left off."""
        source, epochs = bench.source, self._distillation_epochs
        key = {**common, "pruned": pruned.digest, "distillationEpochs": epochs}
        if source.scoring.task != "Classification":
            key["task"] = source.scoring.task
        shelf = _Shelf(bench.work, pruned.name, f"{pruned.name}-distilled", key)
        record = shelf.kept()
        if record is None:
            found = distill(
                dense=source.build_with(dense.load()),
                pruned=source.build_with(pruned.load()),
                samples=source.data.train,
                task=source.scoring.task,
                epochs=epochs,
                seed=source.seed,
                threads=bench.threads,
                checkpoint=shelf.checkpoint,
                progress=bench.progress,
            )
            learned = {
                **pruned.settings,
                "distillationEpochs": epochs,
                "divergence": [float(f"{value:.4g}") for value in (found.before, found.after)],
            }
            record = shelf.keep_state(found.state, learned, seconds=(pruned.seconds or 0.0) + found.seconds)
        return shelf.weights(record, dense, method="one-shot pruning with refit and distillation")

    def _by_latency(
        self, bench: Workbench, dense: CandidateWeights, common: Mapping[str, Any]
    ) -> list[CandidateWeights]:
        source, samples = bench.source, self._calibration_samples
        module = source.build_with(dense.load())
        calibration = source.calibration(samples)
        table = self._table(bench, module, calibration, common)
        key = {**common, "latencyPercent": list(self._latencies), "table": table}
        shelves = {
            percent: _Shelf(bench.work, latency_candidate(percent), latency_candidate(percent), key)
            for percent in self._latencies
        }
        records = {percent: shelf.kept() for percent, shelf in shelves.items()}
        if any(record is None for record in records.values()):
            found = prune_to_latencies(
                module=module,
                calibration=calibration,
                latency_percents=self._latencies,
                layer_times=_read(table),
                seed=source.seed,
                threads=bench.threads,
                progress=bench.progress,
            )
            for result in found.results:
                asked = {"latencyPercent": result.percent, "latencyPercentReached": round(result.percent_reached, 2)}
                records[result.percent] = shelves[result.percent].keep(result, asked)
            for percent, reason in found.not_offered.items():
                records[percent] = shelves[percent].keep_reason(reason)
        for percent, record in records.items():
            if record is not None and "notOffered" in record:
                message = f"latencyPercent {percent} gives no variant: {record['notOffered']}"
                bench.progress(stage=self.stage, fraction=1.0, message=message)
        return [
            shelves[percent].weights(record, dense)
            for percent, record in records.items()
            if record is not None and "notOffered" not in record
        ]

    def _table(
        self, bench: Workbench, module: torch.nn.Module, calibration: Samples, common: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The table of times, measured or as it is kept: a run that goes on elsewhere must give the same bits."""
        stage = "one-shot-layer-times"
        key = {**common, **self._timing, "onnxruntime": onnxruntime.__version__}
        kept: dict[str, Any] | None = bench.work.kept(stage, key, usable=lambda value: isinstance(value, dict))
        if kept is not None:
            return kept
        shapes = layers_to_time(module, calibration)
        times = measure_layer_times(
            shapes, batch=self._timing["batch"], threads=self._timing["threads"], progress=bench.progress
        )
        table = {
            name: {axis: [list(point) for point in points] for axis, points in asdict(found).items()}
            for name, found in times.items()
        }
        bench.work.keep(stage, key, table)
        return table


def _together(module: torch.nn.Module) -> int:
    """How many variants are made at a time: the weights of each are held twice until all are done."""
    weights: int = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    return max(1, memory_to_plan_with() // (_SHARE_OF_VARIANTS * max(1, 2 * weights)))


def _read(table: Mapping[str, Any]) -> dict[str, LayerTimes]:
    return {
        name: LayerTimes(
            rows=tuple((int(width), float(time)) for width, time in found["rows"]),
            columns=tuple((int(width), float(time)) for width, time in found["columns"]),
        )
        for name, found in table.items()
    }


def _tell(bench: Workbench, made: Sequence[CandidateWeights]) -> None:
    """A line of progress for each note: less is left than was asked for, or less was looked at."""
    for candidate in made:
        for note in candidate.settings["notes"]:
            bench.progress(stage=OneShotMethod.stage, fraction=1.0, message=f"{candidate.name}: {note}")


class _Shelf:
    """The place of one result in the work directory."""

    def __init__(self, work: WorkDirectory, name: str, stage: str, key: Mapping[str, Any]) -> None:
        self._work, self._key = work, key
        self._stage, self._name = stage, name
        self._path = work.folder(self._stage, key) / f"{self._name}.safetensors"

    def kept(self) -> dict[str, Any] | None:
        record: dict[str, Any] | None = self._work.kept(
            self._stage,
            self._key,
            usable=lambda value: "notOffered" in value or _holds(self._path, value["digest"]),
        )
        return record

    def keep(self, result: OneShotResult, asked: Mapping[str, Any]) -> dict[str, Any]:
        told = {
            **asked,
            "macsPercentReached": round(result.macs_percent_reached, 2),
            "calibrationSamples": result.samples,
            "notes": list(result.notes),
        }
        return self.keep_state(result.state, told, seconds=result.seconds)

    def keep_state(
        self, state: Mapping[str, torch.Tensor], told: Mapping[str, Any], *, seconds: float
    ) -> dict[str, Any]:
        write_durably(self._path, safetensors.torch.save(dict(state)), field="--work-dir")
        record = {**told, "digest": state_digest(state), "seconds": round(seconds, 1)}
        self._work.keep(self._stage, self._key, record)
        return record

    @property
    def checkpoint(self) -> Path:
        """Where a stage that takes long keeps its place."""
        return self._path.with_suffix(".checkpoint")

    def keep_reason(self, reason: str) -> dict[str, Any]:
        record = {"notOffered": reason}
        self._work.keep(self._stage, self._key, record)
        return record

    def weights(
        self, record: Mapping[str, Any], dense: CandidateWeights, *, method: str = "one-shot pruning with refit"
    ) -> CandidateWeights:
        return CandidateWeights(
            name=self._name,
            parent=dense.name,
            method=method,
            path=self._path,
            digest=record["digest"],
            settings={name: value for name, value in record.items() if name not in ("digest", "seconds")},
            seconds=record["seconds"],
        )


def _holds(path: Path, digest: str) -> bool:
    try:
        return state_digest(safetensors.torch.load_file(path)) == digest
    except (OSError, safetensors.SafetensorError):
        return False
