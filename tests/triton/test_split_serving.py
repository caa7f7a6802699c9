"""Two real Tritons answer as one: at both entries, and whatever happens to one of them the other answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from served_splits import ServedSplit, served_split
from split_portfolios import SPLIT_TAG, Load, ServedWorker, free_ports, publish_split, served, tag_of, write_set
from triton_portfolios import images, revealing_model

from edgefolio_split.executor import SplitExecutor

VALUES = images(3, seed=5)
Answers = dict[int, NDArray[np.float32]]


@pytest.fixture(scope="module")
def split() -> ServedSplit:
    return served_split(tag=SPLIT_TAG)


@pytest.fixture(scope="module")
def split_repository(tmp_path_factory: pytest.TempPathFactory, split: ServedSplit) -> Path:
    repository = tmp_path_factory.mktemp("published") / "splits"
    publish_split(repository, split)
    return repository


@pytest.fixture(scope="module")
def expected(split: ServedSplit) -> Answers:
    """The answers to VALUES by tag: of the reference executor, and of the variants of one node."""
    found = {SPLIT_TAG: SplitExecutor(split.plan, split.files.__getitem__).run(VALUES).outputs[0]}
    for tag in (1, 2):
        session = onnxruntime.InferenceSession(revealing_model(tag, width=4 * tag), providers=["CPUExecutionProvider"])
        (found[tag],) = session.run(None, {"image": VALUES})
    return found


@pytest.fixture(scope="module")
def set_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("set") / "set.yaml", free_ports(2))


@pytest.fixture(scope="module")
def first(split_repository: Path, set_file: Path) -> Iterator[ServedWorker]:
    """The worker that every test keeps; its peer comes and goes."""
    with served(split_repository, set_file, 0, "--worker-metrics-port", "0") as worker:
        yield worker


@contextlib.contextmanager
def peer(split_repository: Path, set_file: Path, first: ServedWorker) -> Iterator[ServedWorker]:
    with served(split_repository, set_file, 1) as worker:
        yield worker


def test_both_entries_answer_as_the_reference_executor_does(
    split_repository: Path,
    set_file: Path,
    first: ServedWorker,
    split: ServedSplit,
    expected: dict[int, NDArray[np.float32]],
) -> None:
    # Alone it is ready at once, and its canary was answered by the fallback.
    assert first.event["answeredBy"] == "fallback"
    assert tag_of(first.infer(VALUES)) == 1
    reference = SplitExecutor(split.plan, split.files.__getitem__)
    with peer(split_repository, set_file, first) as second:
        for worker in (first, second):
            with Load(worker, expected, VALUES) as load:
                load.wait_for_tag(SPLIT_TAG)
            assert (load.errors, load.wrong) == ([], [])
            for samples in (1, 2, 16):
                values = images(samples, seed=samples)
                np.testing.assert_allclose(worker.infer(values), reference.run(values).outputs[0], rtol=0, atol=1e-4)
