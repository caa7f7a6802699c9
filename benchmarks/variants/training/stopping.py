"""When training stops: the rate falls where the validation accuracy stands still; at the last one training ends."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Rule:
    """An epoch is progress if it beats the best by ``least_gain`` points; ``patience`` epochs without end a rate.

    Each of the ``rates`` stages divides the rate by ``division``. The first epoch runs at a fifth of the first rate.
    """

    least_gain: float = 0.1
    patience: int = 3
    rates: int = 3
    division: float = 5.0
    most_epochs: int = 120


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a training stands: the stage of the rate, the best accuracy, and the epochs since the last progress."""

    epoch: int = 0
    stage: int = 0
    best: float = 0.0
    best_epoch: int = -1
    mark: float = 0.0
    waited: int = 0

    def rate_factor(self, rule: Rule) -> float:
        """What the first rate is multiplied by in the next epoch."""
        return 0.2 if self.epoch == 0 else rule.division**-self.stage

    def after(self, accuracy: float, rule: Rule) -> Standing:
        """The standing after an epoch that reached ``accuracy`` percent.

        ``best`` is the highest of all epochs, by however little: its weights are kept. ``mark`` is what progress is
        measured from, so that many small gains count once they add up to one.
        """
        best, best_epoch = max((self.best, self.best_epoch), (accuracy, self.epoch), key=lambda pair: pair[0])
        found = replace(self, epoch=self.epoch + 1, best=best, best_epoch=best_epoch)
        if accuracy >= self.mark + rule.least_gain:
            return replace(found, mark=accuracy, waited=0)
        if self.waited + 1 < rule.patience:
            return replace(found, waited=self.waited + 1)
        return replace(found, stage=self.stage + 1, waited=0)

    def finished(self, rule: Rule) -> bool:
        """Whether the accuracy stood still at the last rate too, or the bound of epochs is reached."""
        return self.stage >= rule.rates or self.epoch >= rule.most_epochs
