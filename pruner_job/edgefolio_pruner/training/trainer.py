"""Trainer of one level, from any step: the masked optimizer, the loop and its checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from edgefolio.errors import UserError
from edgefolio.specification import SparseTraining
from edgefolio_pruner.export import flat_outputs
from edgefolio_pruner.training.answer_forms import AnswerForm, as_logits
from edgefolio_pruner.training.batches import Batches
from edgefolio_pruner.training.determinism import Precision, seed_step
from edgefolio_pruner.training.masks import Masks, apply_masks
from edgefolio_pruner.training.schedule import learning_rate

_REPORT_SECONDS = 0.5


@dataclass(frozen=True)
class LevelSchedule:
    """The steps of one level: ``first_step``..``steps``-1 of its schedule.

    With n batches per epoch, step s is in epoch ``first_epoch`` + s // n.
    """

    level: int
    first_step: int
    steps: int
    first_epoch: int
    peak_rate: float


@dataclass(frozen=True)
class Position:
    """Progress of a level: steps, seconds, and the recent mean loss (for the message only)."""

    step: int
    seconds: float
    loss: float


class LevelTrainer:
    """One network under training with its masks and optimizer state.

    Masked values are exact zeros and stay so: their gradients are zeroed, so neither momentum nor weight decay ever
    moves them.
    """

    def __init__(
        self,
        module: nn.Module,
        masks: Masks,
        specification: SparseTraining,
        precision: Precision,
        form: AnswerForm = "Logits",
    ) -> None:
        self.module = module.train()
        if all(parameter.ndim < 5 for parameter in module.parameters()):
            # Of volumes torch knows another format.
            self.module = self.module.to(memory_format=torch.channels_last)
        self.masks = masks
        self._form = form
        self._specification = specification
        self._precision = precision
        self._parameters = {name: value for name, value in module.named_parameters() if value.requires_grad}
        self._optimizer = _optimizer(self._parameters, specification)
        self._masked = [
            (self._parameters[name], mask.to(torch.float32)) for name, mask in masks.items() if name in self._parameters
        ]
        apply_masks(module, masks)

    def run(
        self,
        batches: Batches,
        schedule: LevelSchedule,
        *,
        seed: int,
        start: Position,
        until: int,
        on_pause: Callable[[Position], None],
        on_report: Callable[[Position], None],
        checkpoint_seconds: float,
    ) -> Position:
        """Train from ``start`` up to step ``until`` (excluded) of ``schedule``.

        ``on_pause`` is called at the end of each epoch and every ``checkpoint_seconds``, between two steps;
        ``on_report`` about twice a second.
        """
        began = time.monotonic() - start.seconds
        saved = reported = time.monotonic()
        position = start
        for step in range(start.step, until):
            rate = learning_rate(self._specification.schedule, step=step, steps=schedule.steps, peak=schedule.peak_rate)
            epoch, place = schedule.first_epoch + step // batches.per_epoch, step % batches.per_epoch
            images, labels = batches.batch(epoch=epoch, position=place)
            seed_step(seed=seed, level=schedule.level, step=step)
            loss = self._step(images, labels, rate)
            now = time.monotonic()
            mean = loss if not position.loss else position.loss + 0.05 * (loss - position.loss)
            position = Position(step=step + 1, seconds=now - began, loss=mean)
            if place == batches.per_epoch - 1 or now - saved >= checkpoint_seconds:
                on_pause(position)
                saved = time.monotonic()
            if now - reported >= _REPORT_SECONDS:
                on_report(position)
                reported = now
        return position

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that a checkpoint needs: ``model/...``, ``optimizer/...``, ``mask/...``."""
        result = {f"model/{name}": value for name, value in self.module.state_dict().items()}
        for name, parameter in self._parameters.items():
            for slot, value in self._optimizer.state[parameter].items():
                if isinstance(value, torch.Tensor):
                    result[f"optimizer/{slot}/{name}"] = value
        result |= {f"mask/{name}": mask.to(torch.uint8) for name, mask in self.masks.items()}
        return result

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take weights, buffers and optimizer state back from a checkpoint's :meth:`tensors`."""
        self.module.load_state_dict(part(tensors, "model/"))
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                slots = self._optimizer.state[parameter]
                for slot, value in slots.items():
                    if isinstance(value, torch.Tensor):
                        # Copied into what is there, so that the memory layout is that of an uninterrupted run.
                        value.copy_(tensors[f"optimizer/{slot}/{name}"])

    def _step(self, images: torch.Tensor, labels: torch.Tensor, rate: float) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._precision == "bfloat16"):
            output = self.module(images)
        # Some networks give further outputs, or auxiliary ones while they are trained.
        logits = as_logits(flat_outputs(output)[0], self._form)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter, mask in self._masked:
                if parameter.grad is not None:
                    parameter.grad.mul_(mask)
        self._optimizer.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise UserError(
                "training diverged: the loss is not finite.",
                field="spec.methods.sparseTraining.learningRate",
                value=f"{rate:.6g}",
                remedy="Lower the learning rate.",
            )
        return value


def part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _optimizer(parameters: Mapping[str, nn.Parameter], specification: SparseTraining) -> torch.optim.Optimizer:
    decay = float(specification.weight_decay)
    # Biases and normalisation are not decayed: it would only shift them.
    groups = [
        {"params": [value for value in parameters.values() if value.ndim > 1], "weight_decay": decay},
        {"params": [value for value in parameters.values() if value.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    momentum = float(specification.momentum)
    optimizer: torch.optim.Optimizer
    if specification.optimizer == "SGD":
        optimizer = torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=momentum > 0, foreach=True)
        slots: tuple[str, ...] = ("momentum_buffer",) if momentum > 0 else ()
    else:
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(momentum, 0.999), foreach=True)
        slots = ("exp_avg", "exp_avg_sq")
    # The state exists from the start, as zeros: a first step and a resumed one then run the same code.
    for value in parameters.values():
        for slot in slots:
            optimizer.state[value][slot] = torch.zeros_like(value)
        if specification.optimizer == "AdamW":
            optimizer.state[value]["step"] = torch.tensor(0.0)
    return optimizer
