"""Check of a network before anything is pruned: do given weights answer as trained ones do on this data?

Weights that are fed or read wrongly (another normalization, another order of the classes, another file) are pruned as
well as others, and their portfolio is published with whatever accuracy is left. Here that is found, and said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from edgefolio.errors import UserError
from edgefolio.manifest import Accuracy
from edgefolio.shown_text import shortened
from edgefolio_pruner.data.class_order import natural
from edgefolio_pruner.data.stored import AnySamples, JoinedSamples, chosen
from edgefolio_pruner.export import flat_outputs
from edgefolio_pruner.inputs import MakingSource
from edgefolio_pruner.randomness import shuffled
from edgefolio_pruner.stages.checks.other_inputs import other_inputs
from edgefolio_pruner.stages.checks.score_check import check_score

_WEIGHTS = "spec.source.weightsURI"
_BATCH = 32
#: Samples that are looked at: enough for each class, little for a large network.
_FEWEST, _PER_CLASS, _MOST = 256, 8, 2048
#: Below it other explanations are sought. A network of this accuracy reads its input rightly.
_GOOD_PERCENT = 90.0
_SMALLEST_GAIN_POINTS = 10.0
#: Standard deviations above chance.
_SIGNIFICANT = 3.0
#: Answers that differ by less, relative to the largest, are the same.
_RELATIVE_DIFFERENCE = 1e-3
_NAMES_SHOWN = 24
#: Values of the training part that its own mean and deviation are taken from.
_VALUES_FOR_STATISTICS = 1 << 24
#: Samples that are also given alone, to see whether a batch changes their answers.
_ONE_BY_ONE = 16

Answers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """Samples of all parts with their labels, as the network is fed with them."""

    inputs: tuple[AnySamples, ...]
    labels: npt.NDArray[np.int64]

    def first(self, count: int) -> _Sample:
        return _Sample(inputs=tuple(given[:count] for given in self.inputs), labels=self.labels[:count])


def check_given_weights(source: MakingSource) -> list[str]:
    """What is to be told of the user's weights. Raises :class:`UserError` if they do not do what trained ones do.

    That is: outputs that are no numbers; another normalization, or a permutation of the classes, under which they are
    far better; answers that are no better than chance.
    """
    if source.initial_state is None:
        return []
    module = source.build_with(source.initial_state)
    data = source.data
    sample = _sample(source)
    if data.task != "Classification" or not data.has_labels:
        return check_score(module, source, sample.inputs, sample.labels)
    answers, outputs = _answers(module, sample.inputs)
    accuracy = _accuracy(answers, sample.labels)
    _refuse_permutation(answers, sample.labels, outputs=outputs, class_names=data.class_names, accuracy=accuracy)
    if accuracy.percent < _GOOD_PERCENT and len(sample.inputs) == 1:
        _refuse_normalization(module, source, sample)
    if _is_chance(answers, sample.labels, outputs=outputs):
        raise UserError(
            f"these weights answer no better than chance: {accuracy.percent:.1f} % of {accuracy.samples} samples are "
            f"right, in {len(data.class_names)} classes.",
            field=_WEIGHTS,
            remedy="Check that they are trained for this data, data.normalization, and data.classNames.",
        )
    notes = [f"the given weights are right on {accuracy.percent:.1f} % of {accuracy.samples} samples of all parts"]
    if outputs > len(data.class_names):
        notes.append(
            f"the network has {outputs} outputs, the data {len(data.class_names)} classes: outputs from "
            f"{len(data.class_names)} on are never right"
        )
    return notes


def depends_on_batch(module: nn.Module, *inputs: AnySamples) -> bool:
    """Whether the network's answer for a sample depends on the others in its batch, in evaluation mode.

    Raises :class:`UserError` if it takes no single sample, or gives it another shape.
    """
    few = [torch.from_numpy(given[:_ONE_BY_ONE]) for given in inputs]
    with torch.inference_mode():
        together = flat_outputs(module.eval()(*few))
        shapes = [output.shape[1:] for output in together]
        alone = [_alone(module, [given[place : place + 1] for given in few], shapes) for place in range(len(few[0]))]
    return any(
        # Written so that a NaN is no dependence; it is found elsewhere.
        float((output - torch.cat([one[place] for one in alone])).abs().max())
        > _RELATIVE_DIFFERENCE * max(float(output.abs().max()), 1e-6)
        for place, output in enumerate(together)
    )


def _alone(module: nn.Module, sample: Sequence[torch.Tensor], shapes: Sequence[torch.Size]) -> list[torch.Tensor]:
    try:
        found = flat_outputs(module(*sample))
        given = ", ".join("x".join(map(str, output.shape)) or "one number" for output in found)
        wanted = ", ".join("x".join(map(str, (1, *shape))) for shape in shapes)
        problem = f"gives {given} instead of {wanted}"
        fits = [output.shape for output in found] == [(1, *shape) for shape in shapes]
    except Exception as error:  # a module may raise anything
        problem, fits = f"fails ({' '.join(str(error).split())[:200]})", False
    if not fits:
        raise UserError(
            f"for a batch of one sample the network {problem}, and requests are often of one sample.",
            field="spec.source.architecture",
            value=1,
            remedy="Keep the batch axis: write squeeze(dim) or flatten(1), not squeeze().",
        )
    return found


def _sample(source: MakingSource) -> _Sample:
    data = source.data
    parts = (data.validation, data.test, data.train)
    most = min(_MOST, max(_FEWEST, _PER_CLASS * len(data.class_names)))
    first, taken = 0, 0
    places: list[Answers] = []
    for part in parts:
        # A third of each, and more of the training part where the others are small.
        wanted = most // 3 if part is not data.train else most - taken
        places.append(first + shuffled(part.samples, seed=source.seed, stream="weights-check")[:wanted])
        first, taken = first + part.samples, taken + len(places[-1])
    # Mixed, so that any first part of it has all.
    order = np.concatenate(places)[shuffled(taken, seed=source.seed, stream="weights-check-order")]
    labels = np.concatenate([part.labels for part in parts])
    joined = (JoinedSamples(list(given)) for given in zip(*(part.all_inputs for part in parts), strict=True))
    return _Sample(inputs=tuple(chosen(given, order) for given in joined), labels=labels[order])


def _answers(module: nn.Module, inputs: tuple[AnySamples, ...]) -> tuple[Answers, int]:
    """The output with the largest value for each sample, and the number of outputs."""
    images = inputs[0]
    found, broken = [], 0
    with torch.inference_mode():
        for start in range(0, len(images), _BATCH):
            batch = [torch.from_numpy(np.ascontiguousarray(given[start : start + _BATCH])) for given in inputs]
            logits = flat_outputs(module(*batch))[0]
            broken += int((~torch.isfinite(logits).all(dim=1)).sum())
            found.append(logits.argmax(dim=1).numpy())
    if broken:
        raise UserError(
            f"the network's outputs are not finite (NaN or infinity) for {broken} of {len(images)} samples.",
            field=_WEIGHTS,
            remedy="Check the weights: a negative running variance or huge values give such outputs.",
        )
    return np.concatenate(found), int(logits.shape[1])


def _accuracy(answers: Answers, labels: Answers) -> Accuracy:
    return Accuracy.from_counts(correct=int((answers == labels).sum()), samples=len(labels))


def _is_chance(answers: Answers, labels: Answers, *, outputs: int) -> bool:
    """Whether the mean recall is what answers that know nothing of the labels would have."""
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        return False
    if len(np.unique(answers)) == 1:
        return True
    share = np.bincount(answers, minlength=outputs)[classes] / len(answers)
    recalls = [float((answers[labels == one] == one).mean()) for one in classes]
    expected = float(share.sum()) / len(classes)
    deviation = float(np.sqrt((share * (1 - share) / counts).sum())) / len(classes)
    mean = float(np.mean(recalls))
    return (mean < 0.01 * _GOOD_PERCENT and mean - expected < _SIGNIFICANT * deviation) or mean == 0


def _refuse_permutation(
    answers: Answers, labels: Answers, *, outputs: int, class_names: Sequence[str], accuracy: Accuracy
) -> None:
    """Find the best assignment of outputs to classes on one half of the samples, and judge it on the other half."""
    classes = len(class_names)
    half = len(labels) // 2
    table = np.zeros((classes, max(outputs, classes)))
    np.add.at(table, (labels[:half], answers[:half]), 1)
    # Of equally good assignments the one that moves fewest classes.
    table[np.arange(classes), np.arange(classes)] += 0.5
    assigned = linear_sum_assignment(table, maximize=True)[1]
    seen = np.isin(np.arange(classes), labels[:half])
    moved = np.flatnonzero((assigned != np.arange(classes)) & seen)
    tested = np.isin(labels[half:], moved)
    if not tested.any():
        return
    wanted, given = labels[half:][tested], answers[half:][tested]
    as_given, as_assigned = _accuracy(given, wanted), _accuracy(given, assigned[wanted])
    if as_assigned.low_percent <= as_given.high_percent or as_assigned.percent < 50:
        return
    shown = ", ".join(
        f"{shortened(class_names[place], 30)!r} is answered by output {int(assigned[place])}"
        + (f" ({shortened(class_names[assigned[place]], 30)!r})" if assigned[place] < classes else "")
        for place in moved[:3]
    )
    raise UserError(
        f"a permutation of the classes explains the errors of these weights: {shown}"
        f"{', ...' if len(moved) > 3 else ''}. As the classes are numbered, {accuracy.percent:.1f} % of "
        f"{accuracy.samples} samples are right (of the {len(moved)} classes at fault {as_given.percent:.1f} %); in the "
        f"other order, {as_assigned.percent:.1f} % of these.",
        field="spec.data.classNames",
        value=", ".join(shortened(name, 30) for name in class_names[:_NAMES_SHOWN]),
        remedy=_ordering_remedy(assigned, seen, outputs=outputs, class_names=class_names),
    )


def _ordering_remedy(
    assigned: npt.NDArray[np.int64], seen: npt.NDArray[np.bool_], *, outputs: int, class_names: Sequence[str]
) -> str:
    classes = len(class_names)
    by_nature = sorted(class_names, key=natural)
    if all(by_nature.index(class_names[place]) == assigned[place] for place in np.flatnonzero(seen)):
        return "Set data.classOrder: Natural."
    if outputs == classes <= _NAMES_SHOWN and bool(seen.all()):
        names: list[str] = [""] * classes
        for place, output in enumerate(assigned):
            names[int(output)] = class_names[place]
        return f"Set data.classNames to the order of the outputs: [{', '.join(names)}]."
    return f"Set data.classNames to all {outputs} classes, in the order of the network's outputs."


def _refuse_normalization(module: nn.Module, source: MakingSource, sample: _Sample) -> None:
    """Try other ways in which networks are fed; one that is far better is how these weights were trained."""
    few = sample.first(_FEWEST)
    now = _accuracy(_answers(module, few.inputs)[0], few.labels)
    best: tuple[Accuracy, str, str] | None = None
    for what, remedy, images in other_inputs(module, source, few.inputs[0][:]):
        try:
            found = _accuracy(_answers(module, (images,))[0], few.labels)
        except UserError:
            continue  # outputs that are not finite explain nothing
        if best is None or found.percent > best[0].percent:
            best = (found, what, remedy)
    if best is None:
        return
    found, what, remedy = best
    if found.low_percent > now.high_percent and found.percent >= now.percent + _SMALLEST_GAIN_POINTS:
        raise UserError(
            f"these weights were trained on other values: {now.percent:.1f} % of {now.samples} samples are right as "
            f"data.normalization has them, {found.percent:.1f} % {what}.",
            field="spec.data.normalization",
            value=_normalization_taken(source),
            remedy=remedy,
        )


def _normalization_taken(source: MakingSource) -> str:
    if source.normalization is not None:
        return "as given"
    whose = "the model's own configuration" if source.normalization_of_model else "the training data"
    return f"absent: mean and deviation of {whose}"
