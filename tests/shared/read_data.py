"""What tests of data readers share: arrays as people have them, and reading a place as a pruning run does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgefolio.specification.metric import Task
from edgefolio_pruner.data.arrays.converting import Request
from edgefolio_pruner.data.raw import RawData
from edgefolio_pruner.data.reading import read_raw

FIELD = "spec.data.trainingURI"
RANDOM = np.random.default_rng(0)
PICTURES = RANDOM.integers(0, 256, (12, 3, 6, 5), dtype=np.uint8)
LABELS = np.arange(12) % 3
NAMES = np.array(["ant", "bee", "cat"])


def read(uri: Path | str, *, task: Task = "Classification", labelled: bool = True, fits: Any = None) -> RawData:
    return read_raw(Request(uri=str(uri), needed="train", field=FIELD, task=task, needs_labels=labelled, fits=fits))


def samples_of(data: RawData, part: str = "train") -> Any:
    return np.asarray(data.parts[part].images)
