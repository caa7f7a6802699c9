"""Forms of a network's answers, as losses need to know them: logits, probabilities, or plain numbers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from edgefolio.specification.metric import Task

#: ``Logits`` and ``Probabilities`` of one class of several, the same of labels that each are or are not, and numbers.
AnswerForm = Literal["Logits", "Probabilities", "LabelLogits", "LabelProbabilities", "Numbers"]

#: Softens both answers, so that the order of the unlikely classes is learned too (Hinton et al. 2015).
TEMPERATURE = 2.0
#: What bfloat16 may make of probabilities that sum to one.
_SUM_TOLERANCE = 1e-2
#: Smaller probabilities count as this one: their logarithm is finite.
_SMALLEST = 1e-12


def form_of(answers: Tensor, task: Task) -> AnswerForm:
    """The form of ``answers``, a network's first output for several samples."""
    if task == "Classification" and answers.ndim == 2 and answers.shape[1] > 1:
        sums = answers.double().sum(1)
        # Written so that a NaN is no probability.
        low, high = float(answers.min()), float(answers.max())
        if low >= 0 and float((sums - 1).abs().max()) <= _SUM_TOLERANCE:
            return "Probabilities"
        # Behind a sigmoid, whose values never are its ends; those of a ReLU often are 0.
        return "LabelProbabilities" if 0 < low < high < 1 else "Logits"
    if task == "MultiLabel":
        low, high = float(answers.min()), float(answers.max())
        return "LabelProbabilities" if 0 <= low < high <= 1 else "LabelLogits"
    return "Numbers"


def as_logits(answers: Tensor, form: AnswerForm) -> Tensor:
    """``answers`` as logits, of which a softmax or sigmoid gives the probabilities: it is not taken twice."""
    if form == "Probabilities":
        return answers.float().clamp_min(_SMALLEST).log()
    if form == "LabelProbabilities":
        return torch.logit(answers.float(), eps=1e-7)
    return answers


def distance(got: Tensor, wanted: Tensor, form: AnswerForm) -> Tensor:
    """How far ``got`` is from ``wanted``: the divergence of the probabilities of classes or labels; of numbers the
    squared error by their mean square.
    """
    if form in ("Logits", "Probabilities"):
        logs = [functional.log_softmax(as_logits(answer, form) / TEMPERATURE, 1) for answer in (got, wanted)]
        return functional.kl_div(logs[0], logs[1], reduction="batchmean", log_target=True) * TEMPERATURE**2
    if form in ("LabelLogits", "LabelProbabilities"):
        logits, goal = as_logits(got, form), as_logits(wanted, form)
        crossed = functional.binary_cross_entropy_with_logits(logits, goal.sigmoid(), reduction="sum")
        least = functional.binary_cross_entropy_with_logits(goal, goal.sigmoid(), reduction="sum")
        return (crossed - least) / len(got)
    return (got - wanted).square().mean() / wanted.square().mean().clamp_min(1e-12)
