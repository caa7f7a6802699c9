"""Check of given weights by the score of their task: do they answer as trained ones do on this data?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgefolio.errors import UserError
from edgefolio_pruner.data.stored import AnySamples
from edgefolio_pruner.export import flat_outputs
from edgefolio_pruner.inputs import MakingSource
from edgefolio_pruner.randomness import shuffled
from edgefolio_pruner.scoring.score import Score
from edgefolio_pruner.scoring.scoring import Scoring, Tally
from edgefolio_pruner.stages.checks.other_inputs import other_inputs

_WEIGHTS = "spec.source.weightsURI"
_BATCH = 32
#: Times that targets are given to other samples, to see what answers are worth that know nothing of them.
_SHUFFLES = 8
_SIGNIFICANT = 3.0
#: Samples on which other normalizations are tried, and what one must gain: in points of a share, and of an error.
_FEW = 256
_GAIN, _LEFT_OF_ERROR = 0.1, 0.6

Array = npt.NDArray[Any]


def check_score(module: nn.Module, source: MakingSource, inputs: tuple[AnySamples, ...], targets: Array) -> list[str]:
    """What is to be told of the weights in ``module``.

    Raises :class:`UserError` if they do not do what trained ones do: outputs that are no numbers; another normalization
    under which they are far better; a score that is no better with the samples' own targets than with those of others.
    """
    outputs = _outputs(module, inputs)
    scoring = _scoring(source)
    if scoring is None:
        return ["the data has no labels to check the given weights by: they are taken as they are"]
    score = _score(scoring, outputs, targets)
    if len(inputs) == 1:
        _refuse_normalization(module, source, scoring, inputs[0][:_FEW], targets[:_FEW])
    others = [
        _score(scoring, outputs, targets[shuffled(len(targets), seed=source.seed, stream=f"weights-chance-{number}")])
        for number in range(_SHUFFLES)
    ]
    by_chance = float(np.mean([other.value for other in others]))
    spread = float(np.std([other.value for other in others]))
    gain = score.value - by_chance if scoring.higher_is_better else by_chance - score.value
    shown = f"{scoring.title} {_shown(score.value, scoring)} on {len(targets)} samples of all parts"
    if not gain > _SIGNIFICANT * spread + 1e-9 * abs(by_chance):
        raise UserError(
            f"these weights answer no better than chance: {shown}, and {_shown(by_chance, scoring)} with the targets "
            "of other samples.",
            field=_WEIGHTS,
            remedy="Check that they are trained for this data, data.normalization, and the order of the targets.",
        )
    notes = [f"the given weights: {shown} ({_shown(by_chance, scoring)} by chance)"]
    if source.data.task == "Regression" and scoring.own is None:
        constant = _score(scoring, (np.broadcast_to(targets.mean(axis=0), targets.shape),), targets)
        if score.value >= constant.value:
            raise UserError(
                f"these weights are worse than always giving the mean of the targets: {shown}, against "
                f"{_shown(constant.value, scoring)}.",
                field=_WEIGHTS,
                remedy="Give targets in the unit that the weights were trained for, and check data.normalization.",
            )
    return notes


def _scoring(source: MakingSource) -> Scoring | None:
    """The metric to check by; of weights that are only compared with themselves, the task's own."""
    if not source.data.has_labels:
        return None
    if source.scoring.needs_labels:
        return source.scoring
    return None if source.scoring.task == "Custom" else replace(source.scoring, asked=None)


def _outputs(module: nn.Module, inputs: tuple[AnySamples, ...]) -> tuple[Array, ...]:
    images = inputs[0]
    found: list[list[Array]] = []
    with torch.inference_mode():
        for start in range(0, len(images), _BATCH):
            batch = [torch.from_numpy(np.ascontiguousarray(given[start : start + _BATCH])) for given in inputs]
            found.append([output.numpy() for output in flat_outputs(module(*batch))])
    outputs = tuple(np.concatenate(parts) for parts in zip(*found, strict=True))
    finite = np.logical_and.reduce([np.isfinite(output).reshape(len(output), -1).all(axis=1) for output in outputs])
    if not finite.all():
        raise UserError(
            f"the network's outputs are not finite (NaN or infinity) for {int((~finite).sum())} of {len(images)} "
            "samples.",
            field=_WEIGHTS,
            remedy="Check the weights: a negative running variance or huge values give such outputs.",
        )
    return outputs


def _score(scoring: Scoring, outputs: tuple[Array, ...], targets: Array) -> Score:
    tally = Tally(scoring)
    tally.add(outputs, targets)
    return tally.result().score


def _refuse_normalization(
    module: nn.Module, source: MakingSource, scoring: Scoring, images: Array, targets: Array
) -> None:
    now = _score(scoring, _outputs(module, (images,)), targets)
    best: tuple[Score, str, str] | None = None
    for what, remedy, changed in other_inputs(module, source, images):
        try:
            found = _score(scoring, _outputs(module, (changed,)), targets)
        except UserError:
            continue  # outputs that are not finite explain nothing
        if best is None or (found.value > best[0].value) == scoring.higher_is_better:
            best = (found, what, remedy)
    if best is None:
        return
    found, what, remedy = best
    if scoring.higher_is_better:
        gains = found.low > now.high and found.value >= now.value + _GAIN * (
            1 if scoring.own is None else abs(now.value)
        )
    else:
        gains = found.high < now.low and found.value <= _LEFT_OF_ERROR * now.value
    if gains:
        raise UserError(
            f"these weights were trained on other values: {scoring.title} is {_shown(now.value, scoring)} on "
            f"{len(targets)} samples as data.normalization has them, {_shown(found.value, scoring)} {what}.",
            field="spec.data.normalization",
            value="absent" if source.normalization is None else "as given",
            remedy=remedy,
        )


def _shown(value: float, scoring: Scoring) -> str:
    return f"{value:.4g}" if scoring.in_percent_of_dense else f"{100 * value:.1f} %"
