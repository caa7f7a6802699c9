"""A Job with its work directory in an object store: killed anywhere, it goes on in an empty directory."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import yaml

from edgefolio.contract.job_report import FailureReport, PublishedReport, report_of_message
from edgefolio.contract.work_pieces import pieces_of
from edgefolio.repository import Repository
from edgefolio.specification.loading import load_portfolio
from edgefolio_edge.models.repository_audit import verify_repository
from edgefolio_pruner.architectures import cnn
from edgefolio_pruner.work.mirror import WorkMirror

KILLS = 3
#: A machine that becomes faster meanwhile finishes before it is killed; each such run halves the time.
MOST_RUNS = 12


class Store:
    """The S3 server as a Job sees it: a place to publish, and one for the work."""

    def __init__(self, uri: str) -> None:
        self.repository, self.work = f"{uri}/published", f"{uri}/work"
        self.environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}

    def candidates(self, folder: Path) -> dict[str, tuple[str, str]]:
        """Digests of the weights and of the ONNX file of every candidate that is kept."""
        WorkMirror.open(self.work, folder).take()
        return candidates(folder)


def candidates(work: Path) -> dict[str, tuple[str, str]]:
    values = [json.loads(path.read_text())["value"] for path in work.glob("candidate-*.json")]
    return {value["name"]: (value["stateDigest"], value["sha256"]) for value in values}


@pytest.fixture
def store(s3_uri: str) -> Store:
    return Store(s3_uri)


@pytest.fixture
def run_job(edgefolio: Any, tmp_path: Path) -> Callable[..., tuple[Any, Any]]:
    """``run_job(file, store)``: one pod, with a directory of its own; how it ended, and its last words."""
    numbers = iter(range(1000))

    def run(file: Path, store: Store, *arguments: str, environment: dict[str, str] | None = None, **how: Any) -> Any:
        folder = tmp_path / f"pod-{next(numbers)}"
        folder.mkdir()
        message = folder / "termination"
        finished = edgefolio(
            *("job", file, folder / "work", "--work-uri", store.work, "--copy-seconds", "0.3", *arguments),
            environment={
                **store.environment,
                "EDGEFOLIO_TERMINATION_MESSAGE": str(message),
                "EDGEFOLIO_MAKING": "0123456789abcdef",
                **(environment or {}),
            },
            **how,
        )
        return finished, report_of_message(message.read_text()) if message.exists() else None

    return run


def stages(finished: Any) -> set[str]:
    lines = [line for line in finished.stdout.splitlines() if line.startswith("{")]
    return {json.loads(line).get("stage", "") for line in lines}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_random_instants_it_goes_on_in_an_empty_directory(made, run_job, store, portfolio_file, tmp_path):
    def file_for(place: Store) -> Path:
        path: Path = portfolio_file(lambda document: document["spec"]["repository"].update(uri=place.repository))
        return path

    file, chance = file_for(store), random.Random(4)
    killed, longest = 0, made.finished.seconds
    for number in range(MOST_RUNS):
        if killed == KILLS:
            break
        finished, _ = run_job(file, store, kill_after=chance.uniform(0.2, 0.6) * longest)
        if finished.code == 0 and killed >= 2:
            break
        if finished.code == 0:
            # The machine is faster now than it was: from the beginning, and killed sooner.
            store, longest = Store(f"{store.work}-{number}"), 0.5 * longest
            file, killed = file_for(store), 0
            continue
        assert finished.code == -signal.SIGKILL, finished.stderr
        killed += 1
        check_repository(store)
        found = store.candidates(tmp_path / f"look-{number}")
        assert found.items() <= candidates(made.work).items()
    assert killed >= 2
    finished, report = run_job(file, store)
    assert finished.code == 0, finished.stderr
    assert isinstance(report, PublishedReport)
    assert store.candidates(tmp_path / "look") == candidates(made.work)
    # Killed while or after it published: the same again, and no second revision.
    for _ in range(3):
        finished, again = run_job(file, store, kill_after=chance.uniform(0.2, 1.0))
        assert finished.code in (0, -signal.SIGKILL), finished.stderr
        assert again in (None, report)
    finished, again = run_job(file, store)
    assert again == report
    assert Repository.open(store.repository).revisions("digits") == (1,)
    check_repository(store)


def check_repository(store: Store) -> None:
    repository = Repository.open(store.repository)
    if repository.current("digits") is not None:
        verification = verify_repository(repository)
        assert verification.is_sound, verification.all_findings


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_was_decided_is_published_even_where_it_would_be_measured_otherwise(
    run_job, store, portfolio_file, tmp_path
):
    """The pod is lost after it decided, and the next one runs on another processor."""
    file = portfolio_file(lambda document: document["spec"]["repository"].update(uri=store.repository))
    finished, report = run_job(file, store)
    assert finished.code == 0, finished.stderr
    # What is measured depends on the processor; with its results gone, it would be measured anew.
    work = tmp_path / "altered"
    remote = WorkMirror.open(store.work, work)
    remote.take()
    for path in [*work.glob("profile-*"), *work.glob("draft-*")]:
        path.unlink()
    remote.send(everything=True)
    finished, again = run_job(file, store)
    assert finished.code == 0, finished.stderr
    assert again == report
    assert "profile" not in stages(finished)
    # Another making measures, and publishes what it found.
    finished, other = run_job(file, store, environment={"EDGEFOLIO_MAKING": "fedcba9876543210"})
    assert isinstance(other, PublishedReport)
    assert other.revision == 2
    assert "profile" in stages(finished)


@pytest.mark.slow
def test_told_to_end_it_keeps_its_work_and_says_so(store, portfolio_file, tmp_path):
    """As a kubelet does it: the process is the container's own, so that it must ask for the signal."""

    def change(document: dict[str, Any]) -> None:
        document["spec"]["repository"]["uri"] = store.repository
        document["spec"]["methods"]["sparseTraining"]["denseEpochs"] = 5000

    message = tmp_path / "termination"
    arguments = (portfolio_file(change), tmp_path / "work", "--work-uri", store.work, "--copy-seconds", "3600")
    with subprocess.Popen(
        [sys.executable, "-m", "edgefolio_pruner.job", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "EDGEFOLIO_TERMINATION_MESSAGE": str(message)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        # An epoch has ended, so that there is a checkpoint.
        assert any((epoch := re.search(r"epoch (\d+)/", line)) and int(epoch[1]) > 2 for line in process.stdout)
        process.terminate()
        process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert report_of_message(message.read_text()) == FailureReport(kind="Failed", problem="The pod was told to end.")
    WorkMirror.open(store.work, tmp_path / "look").take()
    assert [path.name for path in (tmp_path / "look").glob("train-*/checkpoint*")] == ["checkpoint.safetensors"]


def test_a_store_that_does_not_answer_is_worth_another_attempt(run_job, store, portfolio_file):
    file = portfolio_file(lambda document: document["spec"]["repository"].update(uri=store.repository))
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    finished, report = run_job(file, store, environment=nowhere)
    assert finished.code == 1, finished.stderr
    assert isinstance(report, FailureReport)
    assert (report.kind, report.field) == ("Failed", "spec.job.workDirectory.uri")
    missing = Store("s3://no-such-bucket/portfolios")
    missing.environment = store.environment
    finished, report = run_job(file, missing)
    assert finished.code == 2, finished.stderr
    assert isinstance(report, FailureReport)
    assert "there is no bucket" in report.problem


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pieces_made_apart_are_those_of_one_run_bit_by_bit(made, run_job, store, portfolio_file, tmp_path, edgefolio):
    net = cnn(in_channels=1, width=16)
    net.load_state_dict(safetensors.torch.load_file(next(made.work.glob("train-*/levels/dense.safetensors"))))
    safetensors.torch.save_file(net.state_dict(), tmp_path / "weights.safetensors")

    def change(document: dict[str, Any]) -> None:
        spec = document["spec"]
        spec["source"]["weightsURI"] = str(tmp_path / "weights.safetensors")
        spec["methods"]["oneShot"]["macsPercent"] = [60, 25]
        spec["repository"]["uri"] = store.repository
        spec["job"] = {"parallelism": 3, "workDirectory": {"uri": "s3://bucket/work"}}

    file = portfolio_file(change)
    whole = edgefolio("make", "-f", file, "--work-dir", tmp_path / "whole", "--repository", tmp_path / "r", "--json")
    assert whole.code == 0, whole.stderr
    expected = candidates(tmp_path / "whole")
    assert len(expected) == 4

    pieces = pieces_of(load_portfolio(file).spec.methods)
    assert pieces == ("training", "oneshot-60", "oneshot-25")
    numbered = [{"JOB_COMPLETION_INDEX": str(index)} for index in range(len(pieces))]
    # One is killed half-way and made again; in any order.
    run_job(file, store, "--pieces", "3", environment=numbered[0], kill_after=1.5)
    for environment in reversed(numbered):
        finished, report = run_job(file, store, "--pieces", "3", environment=environment)
        assert (finished.code, report) == (0, None), finished.stderr
    finished, report = run_job(file, store)
    assert finished.code == 0, finished.stderr
    assert isinstance(report, PublishedReport)
    assert store.candidates(tmp_path / "look") == expected
    # It found them done, and left no copies.
    assert "re-fitted" not in finished.stdout
    assert "one-shot" in stages(finished)
    assert "pruning exactly" not in finished.stdout
    assert WorkMirror.open(store.work, tmp_path / "x").other_slots() == ()


def test_a_pod_of_another_making_s_shape_is_refused(run_job, store, portfolio_file):
    file = portfolio_file(lambda document: document["spec"]["repository"].update(uri=store.repository))
    for pieces, index in (("3", "0"), ("2", "2"), ("2", "")):
        finished, report = run_job(file, store, "--pieces", pieces, environment={"JOB_COMPLETION_INDEX": index})
        assert finished.code == 2
        assert isinstance(report, FailureReport)
        assert report.field == "JOB_COMPLETION_INDEX"


def test_what_other_settings_left_behind_is_forgotten(made, run_job, store, portfolio_file, tmp_path):
    work = tmp_path / "earlier"
    remote = WorkMirror.open(store.work, work)
    remote.take()
    (work / "train-of-other-settings").mkdir(parents=True)
    (work / "train-of-other-settings" / "dense.safetensors").write_bytes(b"x" * 1000)
    remote.send(everything=True)
    file = portfolio_file(lambda document: document["spec"]["repository"].update(uri=store.repository))
    assert yaml.safe_load(file.read_text())["spec"]["repository"]["uri"] == store.repository
    finished, _ = run_job(file, store)
    assert finished.code == 0, finished.stderr
    WorkMirror.open(store.work, tmp_path / "look").take()
    names = {path.name for path in (tmp_path / "look").iterdir()}
    assert "train-of-other-settings" not in names
    assert {name.partition("-")[0] for name in names} >= {"train", "candidate", "decided", "draft", "profile"}
