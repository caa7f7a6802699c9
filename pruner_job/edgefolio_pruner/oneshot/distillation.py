"""Label-free distillation of a pruned model from the dense one, from any step: resumed runs end with the same bytes.

The pruned model learns to give the dense model's answers on training samples; labels are not looked at. Batch norms
keep their statistics: they have been re-fitted, and those of a batch would not be what is served. Channels that are
gone stay exactly zero.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from edgefolio.errors import UserError
from edgefolio.specification.metric import Task
from edgefolio_pruner.data import Split
from edgefolio_pruner.export import flat_outputs
from edgefolio_pruner.progress import Progress, no_progress
from edgefolio_pruner.spatial import ChannelSlice, capture, channel_groups
from edgefolio_pruner.training.answer_forms import distance, form_of
from edgefolio_pruner.training.batches import Batches
from edgefolio_pruner.training.checkpoint import read_tensors, write_tensors
from edgefolio_pruner.training.determinism import reproducible

BATCH = 64
RATE = 5e-4
#: Samples on which both models are compared at the end, and their number per pass.
_JUDGED = 1024
State = dict[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Distilled:
    """Weights after distillation, and the distance from the dense model's answers before and after.

    ``state`` is what was given if distillation did not bring it nearer.
    """

    state: State
    before: float
    after: float
    seconds: float


def distill(
    *,
    dense: nn.Module,
    pruned: nn.Module,
    samples: Split,
    epochs: int,
    seed: int,
    threads: int,
    checkpoint: Path,
    task: Task = "Classification",
    progress: Progress = no_progress,
    checkpoint_seconds: float = 60.0,
) -> Distilled:
    """Train ``pruned`` (the dense module with pruned weights) in place on the images of ``samples``.

    ``task`` says what the answers are, and so what is near to them.
    ``checkpoint`` is a file that is written now and then, continued from if it is there, and removed at the end. Equal
    arguments give equal bytes on one machine. Raises :class:`~edgefolio.errors.UserError` if it diverges.
    """
    with reproducible(threads=threads):
        run = _Run(dense, pruned, samples, task=task, epochs=epochs, seed=seed)
        before = run.given
        run.restore(checkpoint)
        saved = time.monotonic()
        while run.step < run.steps:
            run.advance()
            if time.monotonic() - saved >= checkpoint_seconds:
                run.store(checkpoint)
                saved = time.monotonic()
            share = run.step / run.steps
            progress(stage="one-shot", fraction=share, message=f"distillation, epoch {run.epoch}/{epochs}")
        distances = [run.distance(state) for state in (before, run.state())]
        state = run.state() if distances[1] < distances[0] else before
    checkpoint.unlink(missing_ok=True)
    return Distilled(state=state, before=distances[0], after=distances[1], seconds=run.seconds)


class _Run:
    """The student, its optimizer and its place in the schedule."""

    def __init__(
        self, dense: nn.Module, pruned: nn.Module, samples: Split, *, task: Task, epochs: int, seed: int
    ) -> None:
        self._dense, self._pruned = dense.eval(), pruned.eval()
        # The samples themselves may be more than memory holds.
        self._images = torch.from_numpy(samples.images[:_JUDGED])
        with torch.no_grad():
            self._form = form_of(_first(self._dense(self._images[:BATCH])), task)
        self._batches = Batches(samples, batch_size=BATCH, augmentation="None", seed=seed)
        self._epochs = epochs
        self.steps, self.step, self.seconds = epochs * self._batches.per_epoch, 0, 0.0
        self.given = self.state()
        self._masks = _masks(pruned, self._images[:2])
        self._parameters = {name: value for name, value in pruned.named_parameters() if value.requires_grad}
        self._optimizer = torch.optim.Adam(self._parameters.values(), lr=0.0)
        # The state exists from the start, as zeros: a first step and a resumed one then run the same code.
        for value in self._parameters.values():
            moments = {slot: torch.zeros_like(value) for slot in ("exp_avg", "exp_avg_sq")}
            self._optimizer.state[value] = {"step": torch.tensor(0.0), **moments}

    @property
    def epoch(self) -> int:
        """The epoch of the last step, from 1."""
        return -(-self.step // self._batches.per_epoch)

    def state(self) -> State:
        """A copy of the student's weights."""
        return {name: value.detach().clone() for name, value in self._pruned.state_dict().items()}

    def advance(self) -> None:
        """One step of the optimizer."""
        began = time.monotonic()
        rate = RATE * 0.5 * (1 + math.cos(math.pi * self.step / self.steps))
        epoch, place = divmod(self.step, self._batches.per_epoch)
        images, _ = self._batches.batch(epoch=epoch, position=place)
        images = images.contiguous()
        with torch.no_grad():
            wanted = _first(self._dense(images))
        with torch.enable_grad():
            loss = distance(_first(self._pruned(images)), wanted, self._form)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
        if not math.isfinite(float(loss.detach())):
            raise UserError(
                "distillation diverged: the loss is not finite.",
                field="spec.methods.oneShot.distillationEpochs",
                value=self._epochs,
                remedy="Set it to 0.",
            )
        for name, mask in self._masks.items():
            held = self._parameters.get(name)
            if held is not None and held.grad is not None:
                held.grad.mul_(mask)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self.step += 1
        self.seconds += time.monotonic() - began

    def distance(self, state: Mapping[str, torch.Tensor]) -> float:
        """The mean distance from the dense model's answers on the first samples, with these weights."""
        self._pruned.load_state_dict(state)
        total, images = 0.0, self._images
        with torch.no_grad():
            for part in torch.split(images, BATCH):
                total += len(part) * float(distance(_first(self._pruned(part)), _first(self._dense(part)), self._form))
        return total / len(images)

    def store(self, path: Path) -> None:
        """Write everything that a later run needs to go on."""
        tensors = {f"model/{name}": value for name, value in self._pruned.state_dict().items()}
        for name, value in self._parameters.items():
            tensors |= {f"optimizer/{slot}/{name}": held for slot, held in self._optimizer.state[value].items()}
        write_tensors(path, tensors, {"step": self.step, "seconds": self.seconds})

    def restore(self, path: Path) -> None:
        """Go on from what :meth:`store` wrote, if it is there."""
        stored = read_tensors(path)
        if stored is None:
            return
        self._pruned.load_state_dict({name: stored.tensors[f"model/{name}"] for name in self._pruned.state_dict()})
        for name, value in self._parameters.items():
            for slot, held in self._optimizer.state[value].items():
                held.copy_(stored.tensors[f"optimizer/{slot}/{name}"])
        self.step, self.seconds = int(stored.record["step"]), float(stored.record["seconds"])


def _first(output: object) -> torch.Tensor:
    """The answers; some networks give others beside them."""
    return flat_outputs(output)[0]


def _masks(module: nn.Module, example: torch.Tensor) -> State:
    """For each parameter where it may change: nowhere that belongs to a channel all of whose writers are zero."""
    captured = capture(module, (example,))
    names = {id(value): name for name, value in module.named_parameters()}
    held = dict(module.named_parameters(remove_duplicate=False))
    masks: State = {}
    for group in channel_groups(captured):
        if not group.prunable or any(part.parameter not in held for part in (*group.writers, *group.readers)):
            continue
        for channel in range(group.channels):
            if any(bool(_part(held, part, channel).any()) for part in group.writers):
                continue
            for part in (*group.writers, *group.readers):
                name = names[id(held[part.parameter])]
                mask = masks.setdefault(name, torch.ones_like(held[name]))
                mask.index_fill_(part.axis, torch.tensor(part.indices[channel]), 0)
    return masks


def _part(held: Mapping[str, torch.Tensor], part: ChannelSlice, channel: int) -> torch.Tensor:
    return held[part.parameter].detach().index_select(part.axis, torch.tensor(part.indices[channel]))
