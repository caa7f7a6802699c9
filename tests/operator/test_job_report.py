"""What a Job says at its end fits into a termination message and comes back as it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefolio.contract.job_report import (
    LARGEST_MESSAGE_BYTES,
    FailureReport,
    PublishedReport,
    report_of_message,
)
from edgefolio.errors import IntegrityError, UserError
from edgefolio.manifest import sha256_of
from edgefolio.repository import Repository
from edgefolio.specification.portfolio_status import VariantStatus

LARGEST = VariantStatus(
    name="v" * 63,
    rank=99,
    accuracy_percent="99.999999",
    mean_milliseconds="999999999.999999",
    p95_milliseconds="999999999.999999",
    load_milliseconds="999999999.999999",
    memory_peak_bytes=2**53,
    memory_steady_bytes=2**53,
)


def test_the_largest_report_fits_and_comes_back() -> None:
    report = PublishedReport(revision=2**24, manifest_digest="f" * 64, variants=(LARGEST,) * 16)
    assert len(report.to_message().encode()) <= LARGEST_MESSAGE_BYTES
    assert report_of_message(report.to_message()) == report


WORDS = st.text(min_size=1)


@given(field=WORDS, value=st.text(), problem=WORDS, remedy=WORDS, kind=st.sampled_from([UserError, IntegrityError]))
def test_any_failure_fits_and_comes_back(field: str, value: str, problem: str, remedy: str, kind: type) -> None:
    if kind is UserError:
        error: Exception = UserError(problem * 300, field=field * 100, value=value * 100, remedy=remedy * 100)
    else:
        error = IntegrityError(problem * 300, location=field * 100, remedy=remedy * 100)
    report = FailureReport.of(error)
    assert report.kind == "BadInput"
    assert len(report.to_message().encode()) <= LARGEST_MESSAGE_BYTES
    assert report_of_message(report.to_message()) == report


def test_a_user_s_mistake_keeps_its_words() -> None:
    error = UserError("there is no such file.", field="spec.data.trainingURI", value="s3://b/x", remedy="Correct it.")
    report = report_of_message(FailureReport.of(error).to_message())
    assert isinstance(report, FailureReport)
    assert report.one_line() == error.one_line()


def test_anything_else_is_a_failure_that_may_be_retried() -> None:
    report = FailureReport.of(ConnectionError("reset by peer"))
    assert (report.kind, report.one_line()) == ("Failed", "ConnectionError: reset by peer")


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "Killed", '{"kind":"Published"}', '{"kind":"Published","variants":[[1]]}', "\x00"]
)
def test_other_messages_say_nothing(text: str) -> None:
    assert report_of_message(text) is None


SPECIFICATION = {
    "apiVersion": "edgefolio.dev/v1alpha1",
    "kind": "ModelPortfolio",
    "metadata": {"name": "digits"},
    "spec": {
        "source": {"architecture": {"library": "edgefolio", "name": "cnn", "options": {"in_channels": 1, "width": 4}}},
        "data": {"trainingURI": "builtin:digits"},
        "methods": {"sparseTraining": {"denseEpochs": 1, "levels": 1, "epochsPerLevel": 1}},
        "profiling": {"samples": 20, "rounds": 2},
        "serving": {"modelName": "digits"},
    },
}


def run_job(folder: Path, specification: dict[str, object]) -> tuple[subprocess.CompletedProcess[str], str]:
    file, message = folder / "portfolio.json", folder / "termination"
    file.write_text(json.dumps(specification))
    done = subprocess.run(
        [sys.executable, "-m", "edgefolio_pruner.job", file, folder / "work"],
        env={**os.environ, "EDGEFOLIO_TERMINATION_MESSAGE": str(message), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return done, message.read_text()


@pytest.mark.slow
def test_a_job_publishes_and_says_what(tmp_path: Path) -> None:
    uri = str(tmp_path / "portfolios")
    specification = {**SPECIFICATION, "spec": {**SPECIFICATION["spec"], "repository": {"uri": uri}}}
    done, message = run_job(tmp_path, specification)
    assert done.returncode == 0, done.stderr
    report = report_of_message(message)
    assert isinstance(report, PublishedReport)
    pointer, manifest = Repository.open(uri).current_manifest("digits")
    assert (report.revision, report.manifest_digest) == (pointer.revision, pointer.manifest_sha256)
    assert sha256_of(manifest.to_bytes()) == report.manifest_digest
    assert [variant.name for variant in report.variants] == [variant.name for variant in manifest.variants]
    stages = [json.loads(line).get("stage") for line in done.stdout.splitlines()]
    assert {"data", "training", "publish"} <= set(stages)


@pytest.mark.slow
def test_bad_input_ends_with_2_and_the_user_s_message(tmp_path: Path) -> None:
    spec = {**SPECIFICATION["spec"], "repository": {"uri": str(tmp_path / "portfolios")}}
    spec["data"] = {"trainingURI": str(tmp_path / "absent.npz")}
    done, message = run_job(tmp_path, {**SPECIFICATION, "spec": spec})
    assert done.returncode == 2
    report = report_of_message(message)
    assert isinstance(report, FailureReport)
    assert report.kind == "BadInput"
    assert report.field == "spec.data.trainingURI"
    assert not (tmp_path / "portfolios").exists()
