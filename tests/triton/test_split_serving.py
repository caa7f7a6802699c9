"""Two real Tritons answer as one: at both entries, and whatever happens to one of them the other answers."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import psutil
import pytest
import yaml
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
def linked_peer(
    split_repository: Path, set_file: Path, first: ServedWorker, expected: Answers
) -> Iterator[tuple[ServedWorker, Load]]:
    """The other worker, once answers at ``first`` are the split's, and the load there, which goes on."""
    with served(split_repository, set_file, 1) as second, Load(first, expected, VALUES) as load:
        load.wait_for_tag(SPLIT_TAG)
        yield second, load


def nothing_failed(load: Load) -> None:
    assert (load.errors, load.wrong) == ([], [])
    # Whole answers of the split, or of its fallback: the smallest variant of one node.
    assert set(load.tags) <= {SPLIT_TAG, 1}


def test_both_entries_answer_as_the_reference_executor_does(
    split_repository: Path, set_file: Path, first: ServedWorker, split: ServedSplit, expected: Answers
) -> None:
    # Alone it is ready at once, and its canary was answered by the fallback.
    assert first.event["answeredBy"] == "fallback"
    assert tag_of(first.infer(VALUES)) == 1
    reference = SplitExecutor(split.plan, split.files.__getitem__)
    with linked_peer(split_repository, set_file, first, expected) as (second, load):
        with Load(second, expected, VALUES) as other:
            other.wait_for_tag(SPLIT_TAG)
            for worker in (first, second):
                for samples in (1, 2, 16):
                    values = images(samples, seed=samples)
                    found = worker.infer(values)
                    np.testing.assert_allclose(found, reference.run(values).outputs[0], rtol=0, atol=1e-4)
        nothing_failed(other)
        metrics = urllib.request.urlopen(f"http://{first.event['workerMetrics']}/metrics", timeout=20).read().decode()
        for line in (
            'edgefolio_split_requests_total{answerer="fallback",model="revealing",reason="',
            'edgefolio_split_linked{model="revealing",reason=""} 1.0',
            'edgefolio_split_received_bytes_total{model="revealing",peer="1"} ',
            'edgefolio_split_round_trip_seconds{model="revealing",peer="1"} ',
        ):
            assert line in metrics, metrics
    nothing_failed(load)


def test_a_peer_that_is_unloaded_says_bye_and_no_request_is_lost(
    split_repository: Path, set_file: Path, first: ServedWorker, expected: Answers
) -> None:
    with Load(first, expected, VALUES) as load:
        for _ in range(2):
            with served(split_repository, set_file, 1):
                load.wait_for_tag(SPLIT_TAG)
            load.wait_for_tag(1)
    nothing_failed(load)
    assert "bye" in first.log()


@pytest.mark.parametrize("victim", ["server", "stub"])
def test_a_peer_that_is_killed_costs_no_request(
    split_repository: Path, set_file: Path, first: ServedWorker, expected: Answers, victim: str
) -> None:
    with Load(first, expected, VALUES) as load:
        with served(split_repository, set_file, 1) as second:
            load.wait_for_tag(SPLIT_TAG)
            process = second.triton() if victim == "server" else second.stub()
            process.kill()
            load.wait_for_tag(1)
            if victim == "stub":
                # Its agent repairs it, and it joins again.
                second.command.wait_for("repaired")
                load.wait_for_tag(SPLIT_TAG)
        # Another one in its place.
        with served(split_repository, set_file, 1):
            load.wait_for_tag(SPLIT_TAG)
    nothing_failed(load)


def test_a_peer_that_is_frozen_whole_costs_no_request(
    split_repository: Path, set_file: Path, first: ServedWorker, expected: Answers
) -> None:
    with linked_peer(split_repository, set_file, first, expected) as (second, load):
        # Server and stub together: a stopped stub alone ends its server.
        frozen = [psutil.Process(second.command.process.pid), second.triton(), second.stub()]
        for process in frozen:
            process.send_signal(signal.SIGSTOP)
        try:
            load.wait_for_tag(1)
        finally:
            for process in reversed(frozen):
                process.send_signal(signal.SIGCONT)
        nothing_failed(load)


def test_a_peer_with_another_set_number_is_refused_until_the_file_is_mended(
    split_repository: Path, set_file: Path, first: ServedWorker, expected: Answers, tmp_path: Path
) -> None:
    document = yaml.safe_load(set_file.read_text())
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({**document, "number": 2}))
    with served(split_repository, other, 1) as second:
        second.command.wait_for("unlinked", reason="refused-set", rank=1)
        assert tag_of(second.infer(VALUES)) == tag_of(first.infer(VALUES)) == 1
        with Load(second, expected, VALUES) as load:
            temporary = tmp_path / "new.yaml"
            temporary.write_text(set_file.read_text())
            temporary.replace(other)
            load.wait_for_tag(SPLIT_TAG)
        nothing_failed(load)


def test_workers_with_identities_answer_together_and_only_with_each_other(
    split_repository: Path, expected: Answers, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("one", "two", "stranger")]
    for folder in folders:
        command = [sys.executable, "-m", "edgefolio.commands.main", "serve", "--make-identity", str(folder)]
        made = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert len(made.stdout.split()[0].split(":")) == 32
    certificates = [Path(folder.name) / "certificate.pem" for folder in folders[:2]]
    encrypted = write_set(tmp_path / "set.yaml", free_ports(2), certificates=certificates)
    with (
        served(split_repository, encrypted, 0, "--identity", str(folders[0])) as first,
        Load(first, expected, VALUES) as load,
    ):
        # Who shows another certificate than the one in the set.
        with served(split_repository, encrypted, 1, "--identity", str(folders[2])) as stranger:
            first.command.wait_for("unlinked", reason="tls", rank=0)
            assert tag_of(stranger.infer(VALUES)) == 1
        with served(split_repository, encrypted, 1, "--identity", str(folders[1])):
            load.wait_for_tag(SPLIT_TAG)
    nothing_failed(load)
