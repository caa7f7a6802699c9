"""Training of one network and seed until its validation accuracy stands still; resumable after every epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from benchmarks.variants.data import SPECIFICATION, TRAINING_SAMPLES
from benchmarks.variants.nets import Net
from benchmarks.variants.training.stopping import Rule, Standing
from platformdirs import user_cache_path
from torch import nn

from edgefolio.specification import SparseTraining
from edgefolio_pruner.data import DataBundle
from edgefolio_pruner.model_source.loading import build_architecture
from edgefolio_pruner.training.batches import Batches
from edgefolio_pruner.training.checkpoint import read_tensors, write_tensors
from edgefolio_pruner.training.determinism import reproducible
from edgefolio_pruner.training.evaluation import evaluate
from edgefolio_pruner.training.result import state_digest
from edgefolio_pruner.training.trainer import LevelSchedule, LevelTrainer, Position

RULE = Rule()
BATCH = 64

Json = dict[str, Any]
#: Told of every epoch: its number, its validation accuracy, and whether it was the last.
Report = Callable[[Standing, float, bool], None]


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network: its best weights, and the record of how they came about."""

    state: dict[str, torch.Tensor]
    record: Json

    @property
    def digest(self) -> str:
        """The sha256 of the weights."""
        return state_digest(self.state)


def cache_folder() -> Path:
    """Where trained weights are kept, on Linux ``$XDG_CACHE_HOME/edgefolio/variants``."""
    return user_cache_path("edgefolio") / "variants"


def folder_of(name: str, seed: int, root: Path | None = None) -> Path:
    """The folder of one network and seed."""
    return (root or cache_folder()) / name / f"seed-{seed}"


def trained(name: str, net: Net, seed: int, *, root: Path | None = None) -> Trained | None:
    """The finished training of this recipe, or None."""
    return finished(folder_of(name, seed, root), recipe(net, seed))


def finished(folder: Path, key: Json) -> Trained | None:
    """What a training in ``folder`` by the recipe ``key`` ended with, or None."""
    held = read_tensors(folder / "trained.safetensors")
    if held is None or held.record["recipe"] != key:
        return None
    return Trained(state=held.tensors, record=held.record)


def module_of(net: Net, seed: int, state: dict[str, torch.Tensor]) -> nn.Module:
    """The network with ``state``, in evaluation mode."""
    module = build_architecture(net.architecture, seed=seed).eval()
    module.load_state_dict(state)
    return module


def recipe(net: Net, seed: int, *, samples: int = TRAINING_SAMPLES, rule: Rule = RULE) -> Json:
    """Everything that the weights depend on, beside the processor and torch.

    Spelled out: whole specifications would change with every new field of the product, and with them hours of training.
    """
    return {
        "architecture": {
            "library": net.architecture.library,
            "name": net.architecture.name,
            "options": dict(net.architecture.options),
        },
        "data": SPECIFICATION.training_uri,
        "trainingSamples": samples,
        "optimizer": net.optimizer,
        "rate": net.rate,
        "weightDecay": net.weight_decay,
        "batch": BATCH,
        "augmentation": net.augmentation,
        "precision": net.precision,
        "rule": asdict(rule),
        "seed": seed,
    }


def settings_of(net: Net) -> SparseTraining:
    """The optimizer's settings as the product's trainer takes them; the rate is set epoch by epoch."""
    return SparseTraining(
        optimizer=net.optimizer,
        learning_rate=f"{net.rate:g}",
        weight_decay=f"{net.weight_decay:g}",
        schedule="Constant",
        batch_size=BATCH,
        augmentation=net.augmentation,
    )


def train(
    name: str, net: Net, seed: int, data: DataBundle, *, report: Report, root: Path | None = None, rule: Rule = RULE
) -> Trained:
    """Train until :class:`Rule` says stop, from the checkpoint if there is one; the weights of the best epoch."""
    return to_standstill(
        build_architecture(net.architecture, seed=seed),
        net,
        data,
        seed=seed,
        folder=folder_of(name, seed, root),
        key=recipe(net, seed, samples=data.train.samples, rule=rule),
        report=report,
        rule=rule,
    )


def to_standstill(
    module: nn.Module,
    net: Net,
    data: DataBundle,
    *,
    seed: int,
    folder: Path,
    key: Json,
    report: Report,
    rule: Rule = RULE,
    enough: float = float("inf"),
) -> Trained:
    """Train ``module`` by the recipe of ``net``; with ``enough`` no longer than until validation reaches it.

    ``folder`` holds the checkpoint, and at last ``trained.safetensors``; both are of ``key`` or not used. All
    validation samples are looked at after each epoch, in the precision of the training.
    """
    with reproducible(threads=1):
        batches = Batches(data.train, batch_size=BATCH, augmentation=net.augmentation, seed=seed)
        trainer = LevelTrainer(module, {}, settings_of(net), net.precision)
        record: Json = {"recipe": key, "seconds": 0.0, "history": [], "standing": asdict(Standing())}
        held = read_tensors(folder / "checkpoint.safetensors")
        if held is not None and held.record["recipe"] == key:
            trainer.restore(held.tensors)
            record = held.record
        standing = Standing(**record["standing"])
        while not standing.finished(rule) and standing.best < enough:
            rate = net.rate * standing.rate_factor(rule)
            cpu = time.thread_time()
            loss = _epoch(trainer, batches, epoch=standing.epoch, rate=rate, seed=seed)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=net.precision == "bfloat16"):
                accuracy = 100 * evaluate(module, data.validation) / data.validation.samples
            standing = standing.after(accuracy, rule)
            line = {"rate": rate, "loss": round(loss, 4), "validation": round(accuracy, 3)}
            record = {
                "recipe": key,
                "seconds": record["seconds"] + time.thread_time() - cpu,
                "history": [*record["history"], line],
                "standing": asdict(standing),
            }
            if standing.best_epoch == standing.epoch - 1:
                write_tensors(folder / "best.safetensors", module.state_dict(), record)
            write_tensors(folder / "checkpoint.safetensors", trainer.tensors(), record)
            report(standing, accuracy, standing.finished(rule))
    best = read_tensors(folder / "best.safetensors")
    assert best is not None
    record |= {"torch": torch.__version__}
    write_tensors(folder / "trained.safetensors", best.tensors, record)
    for name in ("checkpoint", "best"):
        (folder / f"{name}.safetensors").unlink(missing_ok=True)
    return Trained(state=best.tensors, record=record)


def _epoch(trainer: LevelTrainer, batches: Batches, *, epoch: int, rate: float, seed: int) -> float:
    steps = batches.per_epoch
    schedule = LevelSchedule(level=0, first_step=0, steps=(epoch + 1) * steps, first_epoch=0, peak_rate=rate)
    reached = trainer.run(
        batches,
        schedule,
        seed=seed,
        start=Position(step=epoch * steps, seconds=0.0, loss=0.0),
        until=(epoch + 1) * steps,
        on_pause=lambda _: None,
        on_report=lambda _: None,
        checkpoint_seconds=float("inf"),
    )
    return reached.loss
