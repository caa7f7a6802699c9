"""Dense training and iterative pruning, level by level, resumable at any point."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from edgefolio.specification import SparseTraining
from edgefolio_pruner.data import DataBundle
from edgefolio_pruner.export import flat_outputs
from edgefolio_pruner.model_source.loading import check_weights_fit
from edgefolio_pruner.progress import Progress, no_progress
from edgefolio_pruner.spatial import ChannelGroup, capture, channel_groups
from edgefolio_pruner.training.answer_forms import AnswerForm, form_of
from edgefolio_pruner.training.batches import Batches
from edgefolio_pruner.training.checkpoint import read_json, read_tensors, remove_unfinished, write_json, write_tensors
from edgefolio_pruner.training.determinism import Precision, fastest_precision, reproducible
from edgefolio_pruner.training.evaluation import check_model_fits_data, evaluate
from edgefolio_pruner.training.level_plan import LevelPlan, check_momentum
from edgefolio_pruner.training.mask_groups import prune_by_group, with_first_names
from edgefolio_pruner.training.masks import (
    Masks,
    apply_masks,
    full_masks,
    kept_weights,
    prunable_parameters,
    prune_by_magnitude,
    summary_of,
    target_of,
)
from edgefolio_pruner.training.result import MaskSummary, TrainedLevel, state_digest
from edgefolio_pruner.training.trainer import LevelSchedule, LevelTrainer, Position, part

_FORMAT = 1
#: Samples by which logits and probabilities are told apart.
_LOOKED_AT = 64


def train_levels(
    *,
    specification: SparseTraining,
    build: Callable[[], nn.Module],
    initial_state: Mapping[str, torch.Tensor] | None,
    data: DataBundle,
    seed: int,
    threads: int,
    work_directory: Path,
    progress: Progress = no_progress,
    checkpoint_seconds: float = 30.0,
) -> tuple[TrainedLevel, ...]:
    """Train the dense model and ``specification.levels`` sparse ones; ``dense`` comes first.

    ``build`` gives the freshly initialised module, the same each time. With ``initial_state`` these weights are the
    dense model and are not trained further. Everything is kept in ``work_directory``: called again with equal arguments
    it resumes after any kind of stop and ends with the same bits (same CPU, torch and threads); called
    with other arguments it begins anew. Raises :class:`UserError` for a model without prunable layers, one that does
    not fit the data, settings that cannot work and training that diverges.
    """
    check_momentum(specification)
    with reproducible(threads=threads):
        run = _Run(
            specification=specification,
            build=build,
            initial_state=initial_state,
            data=data,
            seed=seed,
            threads=threads,
            folder=work_directory,
            progress=progress,
            checkpoint_seconds=checkpoint_seconds,
        )
        levels: list[TrainedLevel] = []
        for level in range(specification.levels + 1):
            levels.append(run.finished(level) or run.train(level, levels))
        (work_directory / "checkpoint.safetensors").unlink(missing_ok=True)
    return tuple(levels)


class _Run:
    """One call of :func:`train_levels`."""

    def __init__(
        self,
        *,
        specification: SparseTraining,
        build: Callable[[], nn.Module],
        initial_state: Mapping[str, torch.Tensor] | None,
        data: DataBundle,
        seed: int,
        threads: int,
        folder: Path,
        progress: Progress,
        checkpoint_seconds: float,
    ) -> None:
        self._specification, self._build, self._data, self._seed = specification, build, data, seed
        self._folder, self._progress, self._checkpoint_seconds = folder, progress, checkpoint_seconds
        module = build()
        check_model_fits_data(module, data)
        if initial_state is not None:
            check_weights_fit(module, initial_state, field="spec.source.weightsURI", name="the given weights")
            module.load_state_dict(initial_state, strict=False)
        self._start = {name: value.clone() for name, value in module.state_dict().items()}
        self._given = initial_state is not None
        self._full = full_masks(module)
        self._form = _form_in_training(build(), data)
        self._batches = Batches(
            data.train,
            batch_size=specification.batch_size,
            augmentation=specification.augmentation,
            seed=seed,
        )
        self._groups: tuple[ChannelGroup, ...] | None = None
        self._plan = LevelPlan(specification, steps_per_epoch=self._batches.per_epoch, given=self._given)
        self._plan.check_rewinding()
        self._precision = self._enter_folder(threads)

    def finished(self, level: int) -> TrainedLevel | None:
        """The level, if an earlier run completed it and its files are whole."""
        record = read_json(self._file(level, "json"))
        state, masks = self._stored(level, "safetensors"), self._stored(level, "masks.safetensors")
        if record is None or state is None or masks is None or state_digest(state) != record["state_digest"]:
            return None
        if level == 0 and self._plan.records_rewinding and read_tensors(self._folder / "rewind.safetensors") is None:
            return None
        record["masks"] = tuple(MaskSummary(**entry) for entry in record["masks"])
        return TrainedLevel(**record, state_path=self._file(level, "safetensors"))

    def train(self, level: int, before: list[TrainedLevel]) -> TrainedLevel:
        """Train ``level`` from its checkpoint, or from the level before it."""
        schedule = self._plan.schedule(level)
        module = self._build()
        checkpoint = read_tensors(self._folder / "checkpoint.safetensors")
        if checkpoint is not None and checkpoint.record.get("level") == level:
            masks = {name: mask.bool() for name, mask in part(checkpoint.tensors, "mask/").items()}
            trainer = LevelTrainer(module, masks, self._specification, self._precision, self._form)
            trainer.restore(checkpoint.tensors)
            position = Position(
                step=int(checkpoint.record["step"]), seconds=float(checkpoint.record["seconds"]), loss=0.0
            )
        else:
            masks = self._begin(module, level, before)
            trainer = LevelTrainer(module, masks, self._specification, self._precision, self._form)
            position = Position(step=schedule.first_step, seconds=0.0, loss=0.0)
        if level == 0 and self._plan.records_rewinding and position.step <= self._specification.rewind_step:
            position = self._advance(trainer, schedule, position, until=self._specification.rewind_step)
            write_tensors(self._folder / "rewind.safetensors", module.state_dict())
        position = self._advance(trainer, schedule, position, until=schedule.steps)
        return self._finish(level, module, masks, position.seconds, before)

    def _advance(self, trainer: LevelTrainer, schedule: LevelSchedule, position: Position, *, until: int) -> Position:
        def pause(reached: Position) -> None:
            record = {"level": schedule.level, "step": reached.step, "seconds": reached.seconds}
            write_tensors(self._folder / "checkpoint.safetensors", trainer.tensors(), record)

        def report(reached: Position) -> None:
            done = (reached.step - schedule.first_step) / max(schedule.steps - schedule.first_step, 1)
            epochs = max(-(-schedule.steps // self._batches.per_epoch), 1)
            epoch = min(reached.step // self._batches.per_epoch + 1, epochs)
            self._report(schedule.level, done, f"epoch {epoch}/{epochs}, loss {reached.loss:.3f}")

        return trainer.run(
            self._batches,
            schedule,
            seed=self._seed,
            start=position,
            until=until,
            on_pause=pause,
            on_report=report,
            checkpoint_seconds=self._checkpoint_seconds,
        )

    def _begin(self, module: nn.Module, level: int, before: list[TrainedLevel]) -> Masks:
        """Put the weights that ``level`` begins with into ``module``; its masks."""
        if level == 0:
            module.load_state_dict(self._start)
            return {}
        parent = before[level - 1]
        module.load_state_dict(parent.state())
        stored = self._stored(level - 1, "masks.safetensors") or {}
        masks = {name: mask.bool() for name, mask in stored.items()} or dict(self._full)
        prunable = prunable_parameters(module)
        target = target_of(parent.kept_weights, self._specification.prune_percent)
        if self._specification.sparsity == "Group":
            self._report(level, 0.0, "ranking channel groups")
            masks = prune_by_group(
                masks, dict(module.named_parameters()), prunable, self._channel_groups(), target=target
            )
        else:
            masks = prune_by_magnitude(masks, prunable, target=target)
        if self._plan.rewinds:
            rewound = read_tensors(self._folder / "rewind.safetensors")
            # Given weights have no earlier step: levels rewind to them.
            module.load_state_dict(self._start if self._given or rewound is None else rewound.tensors)
        return masks

    def _finish(
        self, level: int, module: nn.Module, masks: Masks, seconds: float, before: list[TrainedLevel]
    ) -> TrainedLevel:
        self._report(level, 1.0, "validating")
        apply_masks(module, masks)
        correct = evaluate(module, self._data.validation)
        prunable = prunable_parameters(module)
        complete = self._full | masks
        state = module.state_dict()
        write_tensors(self._file(level, "safetensors"), state)
        write_tensors(self._file(level, "masks.safetensors"), {name: mask.byte() for name, mask in masks.items()})
        result = TrainedLevel(
            name=_name(level),
            level=level,
            parent=before[-1].name if before else None,
            state_path=self._file(level, "safetensors"),
            state_digest=state_digest(state),
            kept_weights=kept_weights(complete, prunable),
            prunable_weights=sum(mask.numel() for mask in self._full.values()),
            masks=summary_of(masks),
            validation_correct=correct,
            validation_samples=self._data.validation.samples,
            seconds=round(seconds, 3),
        )
        record = {key: value for key, value in asdict(result).items() if not key.endswith("_path")}
        # Written last: with it the level is complete.
        write_json(self._file(level, "json"), record)
        self._report(level, 1.0, f"validation accuracy {result.validation_accuracy_percent:.2f} %")
        return result

    def _channel_groups(self) -> tuple[ChannelGroup, ...]:
        if self._groups is None:
            module = self._build().eval()
            example = torch.from_numpy(self._data.train.images[:2].copy())
            self._groups = with_first_names(channel_groups(capture(module, (example,))), module)
        return self._groups

    def _enter_folder(self, threads: int) -> Precision:
        """Reuse the folder of an equal run, or clear it; returns the training precision."""
        settings = {
            "format": _FORMAT,
            "specification": self._specification.model_dump(mode="json"),
            "seed": self._seed,
            "threads": threads,
            "data": self._data.digests.model_dump(mode="json"),
            "start": state_digest(self._start),
            "given": self._given,
            "torch": torch.__version__,
        }
        if self._form != "Logits":
            settings["answers"] = self._form
        fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        remove_unfinished(self._folder)
        run = read_json(self._folder / "run.json")
        if run is not None and run.get("fingerprint") == fingerprint:
            # Kept on a machine that would choose otherwise: a run must not change its precision.
            return "bfloat16" if run.get("precision") == "bfloat16" else "float32"
        # Remove the run record first: an interrupted clearing must not look like a run.
        write_json(self._folder / "run.json", {})
        shutil.rmtree(self._folder / "levels", ignore_errors=True)
        for name in ("checkpoint.safetensors", "rewind.safetensors"):
            (self._folder / name).unlink(missing_ok=True)
        precision = fastest_precision()
        write_json(self._folder / "run.json", {"fingerprint": fingerprint, "precision": precision, **settings})
        return precision

    def _file(self, level: int, suffix: str) -> Path:
        return self._folder / "levels" / f"{_name(level)}.{suffix}"

    def _stored(self, level: int, suffix: str) -> dict[str, torch.Tensor] | None:
        stored = read_tensors(self._file(level, suffix))
        return None if stored is None else stored.tensors

    def _report(self, level: int, done: float, message: str) -> None:
        fraction = self._plan.fraction(level, done)
        self._progress(stage="training", fraction=min(fraction, 1.0), message=f"{_name(level)}: {message}")


def _form_in_training(fresh: nn.Module, data: DataBundle) -> AnswerForm:
    """What the network gives while it is trained: some take the softmax in evaluation alone.

    ``fresh`` is one that is not used further: batch norms learn of what they see.
    """
    images = torch.from_numpy(data.train.images[:_LOOKED_AT].copy())
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return form_of(flat_outputs(fresh.train()(images))[0], "Classification")


def _name(level: int) -> str:
    return "dense" if level == 0 else f"sparse-{level}"
