"""Judge of variants: scores of ONNX files on validation and test, in percent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgefolio.manifest import Accuracy, ClassFigures, ScoreFigures
from edgefolio_pruner.data import DataBundle, Split
from edgefolio_pruner.profiling.session import open_session
from edgefolio_pruner.progress import Progress, no_progress
from edgefolio_pruner.scoring.metrics import Array, classes_of
from edgefolio_pruner.scoring.score import Score, percent_of_dense, require_comparable, share_percent
from edgefolio_pruner.scoring.scoring import Scoring, Tally

#: Size of batches where the answers do not depend on it.
FAST_BATCH = 256

Part = Literal["validation", "test"]
#: Gives all outputs for a batch of all inputs.
Runner = Callable[[Sequence[Array]], Sequence[Array]]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Score of one variant on one part of the data, in percent and, where it has one, in its own unit."""

    accuracy: Accuracy
    classes: ClassFigures | None
    score: ScoreFigures | None = None


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Scores files of one source. ``dense`` is the dense model's file, where scores are told beside it."""

    scoring: Scoring
    data: DataBundle
    threads: int
    batch: int = FAST_BATCH
    dense: Path | None = None
    dense_digest: str = ""

    @property
    def key(self) -> dict[str, Any]:
        """What scores depend on, for keys of kept results; nothing of plain accuracy."""
        if self.scoring.is_default:
            return {}
        return {"scoring": self.scoring.key, **({"dense": self.dense_digest} if self.scoring.needs_dense else {})}

    def compared_with(self, dense_digest: str) -> Judge:
        """The judge of candidates of these dense weights."""
        return replace(self, dense_digest=dense_digest)

    def beside(self, dense: Path) -> Judge:
        """The judge that knows the dense model."""
        return replace(self, dense=dense)

    def measure(self, path: Path, part: Part, *, progress: Progress = no_progress) -> Measured:
        """The score of the file at ``path`` on ``part``. A sample with a NaN among its outputs is wrong."""
        return self.measure_answers(self._runner(path), part, progress=progress)

    def measure_answers(self, answer: Runner, part: Part, *, progress: Progress = no_progress) -> Measured:
        """As :meth:`measure`, of whatever gives outputs for a batch of inputs."""
        scoring, split = self.scoring, self._split(part)
        wanted = self._dense_outputs.get(part) if not scoring.needs_labels else None
        tally = Tally(scoring, dense=wanted)
        classes = len(self.data.class_names) if scoring.task == "Classification" and self.data.has_labels else 0
        right = np.zeros(classes, dtype=np.int64)
        for start, outputs in self._outputs(answer, split, progress=progress):
            stop = start + len(outputs[0])
            labels = split.labels[start:stop]
            tally.add(outputs, labels if wanted is None else wanted[start:stop])
            if classes:
                right += np.bincount(labels[classes_of(outputs[0]) == labels], minlength=classes)
        found = tally.result()
        return Measured(
            accuracy=found.accuracy or self._percent(found.score, part, samples=split.samples),
            classes=ClassFigures.from_counts(
                correct=right.tolist(), samples=np.bincount(split.labels, minlength=classes).tolist()
            )
            if classes
            else None,
            score=ScoreFigures(value=found.score.value, low=found.score.low, high=found.score.high)
            if scoring.in_percent_of_dense
            else None,
        )

    def _percent(self, score: Score, part: Part, *, samples: int) -> Accuracy:
        if not self.scoring.in_percent_of_dense:
            return share_percent(score, samples=samples)
        dense = self._dense_scores[part]
        return percent_of_dense(score, dense, higher_is_better=self.scoring.higher_is_better, samples=samples)

    @cached_property
    def _dense_outputs(self) -> Mapping[str, Array]:
        """The dense model's first outputs, by part."""
        return {part: self._first_outputs(self._split(part)) for part in ("validation", "test")}

    @cached_property
    def _dense_scores(self) -> Mapping[str, Score]:
        assert self.dense is not None
        found: dict[str, Score] = {}
        for part in ("validation", "test"):
            split, tally = self._split(part), Tally(self.scoring)
            for start, outputs in self._outputs(self._runner(self.dense), split):
                tally.add(outputs, split.labels[start : start + len(outputs[0])])
            found[part] = tally.result().score
            require_comparable(
                found[part],
                higher_is_better=self.scoring.higher_is_better,
                field=self.scoring.field,
                value=self.scoring.title,
            )
        return found

    def _first_outputs(self, split: Split) -> Array:
        assert self.dense is not None
        return np.concatenate([outputs[0] for _, outputs in self._outputs(self._runner(self.dense), split)])

    def _outputs(
        self, answer: Runner, split: Split, *, progress: Progress = no_progress
    ) -> Iterator[tuple[int, tuple[Array, ...]]]:
        for start in range(0, split.samples, self.batch):
            progress(stage="accuracy", fraction=start / split.samples, message=f"{start} of {split.samples} samples")
            yield start, tuple(answer(split.inputs(start, start + self.batch)))

    def _runner(self, path: Path) -> Runner:
        session = open_session(path, threads=self.threads)
        names = [value.name for value in session.get_inputs()]
        return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))

    def _split(self, part: Part) -> Split:
        return self.data.validation if part == "validation" else self.data.test
