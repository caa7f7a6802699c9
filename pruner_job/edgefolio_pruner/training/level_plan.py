"""Plan of dense training and its sparse levels: steps, learning rates, and the step to rewind to."""

from __future__ import annotations

from edgefolio.errors import UserError
from edgefolio.specification import SparseTraining
from edgefolio_pruner.training.trainer import LevelSchedule

_FIELD = "spec.methods.sparseTraining"

# A trained network continues at a lower rate.
_LEVEL_RATE_SHARE = 0.5


class LevelPlan:
    """The levels of one run; with ``given`` weights there is no dense training."""

    def __init__(self, specification: SparseTraining, *, steps_per_epoch: int, given: bool) -> None:
        self._specification = specification
        self._steps_per_epoch = steps_per_epoch
        self._given = given

    def schedule(self, level: int) -> LevelSchedule:
        """The steps of ``level``, and its learning rate."""
        specification, per_epoch = self._specification, self._steps_per_epoch
        peak = float(specification.learning_rate)
        if level == 0:
            epochs = 0 if self._given else specification.dense_epochs
            return LevelSchedule(level=0, first_step=0, steps=epochs * per_epoch, first_epoch=0, peak_rate=peak)
        steps = specification.epochs_per_level * per_epoch
        if self.rewinds:
            # The schedule and the sample order are rewound with the weights.
            first = min(specification.rewind_step, steps)
            return LevelSchedule(level=level, first_step=first, steps=steps, first_epoch=0, peak_rate=peak)
        if specification.level_learning_rate is not None:
            peak = float(specification.level_learning_rate)
        else:
            peak *= _LEVEL_RATE_SHARE
        epochs_before = specification.dense_epochs + (level - 1) * specification.epochs_per_level
        return LevelSchedule(level=level, first_step=0, steps=steps, first_epoch=epochs_before, peak_rate=peak)

    @property
    def rewinds(self) -> bool:
        """Whether levels begin with the weights of an early step."""
        return self._specification.rewind_step > 0 and self._specification.levels > 0

    @property
    def records_rewinding(self) -> bool:
        """Whether dense training keeps the weights of that step."""
        return self.rewinds and not self._given

    def check_rewinding(self) -> None:
        """Raise :class:`UserError` if training ends before the step to rewind to."""
        if not self.rewinds:
            return
        epochs = [self._specification.epochs_per_level]
        if not self._given:
            epochs.append(self._specification.dense_epochs)
        steps = min(epochs) * self._steps_per_epoch
        if self._specification.rewind_step >= steps:
            raise UserError(
                f"dense training or a level ends after {steps} steps, before the step to rewind to.",
                field=f"{_FIELD}.rewindStep",
                value=self._specification.rewind_step,
                remedy=f"Take a step below {steps}, or train for more epochs.",
            )

    def fraction(self, level: int, done: float) -> float:
        """The share of all epochs that is done when ``level`` is done to the share ``done``."""
        epochs = [0 if self._given else self._specification.dense_epochs]
        epochs += [self._specification.epochs_per_level] * self._specification.levels
        return (sum(epochs[:level]) + done * epochs[level]) / max(sum(epochs), 1)


def check_momentum(specification: SparseTraining) -> None:
    """Raise :class:`UserError` for a momentum that no optimizer can work with."""
    if float(specification.momentum) >= 1:
        raise UserError(
            "momentum must be below 1.",
            field=f"{_FIELD}.momentum",
            value=specification.momentum,
            remedy="Take a number of at least 0 and below 1.",
        )
