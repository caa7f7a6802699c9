"""Killed at any instant and started again, making ends with the same bytes, and never half a revision is current."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from edgefolio.repository import Repository
from edgefolio_edge.models.repository_audit import verify_repository

PORTFOLIOS = 4
KILLS_PER_PORTFOLIO = 5


def digests(work: Path) -> dict[str, tuple[str, str]]:
    """Digests of the weights and of the ONNX file of every candidate."""
    values = [json.loads(path.read_text())["value"] for path in work.glob("candidate-*.json")]
    return {value["name"]: (value["stateDigest"], value["sha256"]) for value in values}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_twenty_random_instants_it_resumes_to_the_same_digests(edgefolio, made, tmp_path):
    chance = random.Random(20)
    reference = digests(made.work)
    assert len(reference) == 3
    repository = tmp_path / "repository"
    revision, killed, longest = 0, 0, made.finished.seconds
    for number in range(PORTFOLIOS):
        work = tmp_path / f"work{number}"
        command = (
            "make",
            "-f",
            made.folder / "portfolio.yaml",
            "--work-dir",
            work,
            "--repository",
            repository,
            "--json",
        )
        for _ in range(KILLS_PER_PORTFOLIO):
            kill_after = chance.uniform(0.0, 0.6 * longest)
            finished = edgefolio(*command, kill_after=kill_after)
            if finished.code == 0:
                # It was done before: what is killed next is making from the beginning, in another directory, and sooner
                # (the machine may be faster now than it was).
                longest *= 0.7
                work = work.with_name(f"{work.name}x")
                command = (*command[:4], work, *command[5:])
                continue
            assert finished.code == -9, finished.stderr
            killed += 1
            check_repository(repository)
        finished = edgefolio(*command)
        assert finished.code == 0, finished.stderr
        assert digests(work) == reference
        # Whatever was current is whole, and what is done is not done twice.
        assert finished.document["revision"] >= revision
        revision = finished.document["revision"]
        again = edgefolio(*command)
        assert again.document["alreadyPublished"]
        assert again.document["manifestSha256"] == finished.document["manifestSha256"]
        check_repository(repository)
    assert killed >= 15


def check_repository(path: Path) -> None:
    if not path.exists() or Repository.open(str(path)).current("digits") is None:
        return
    verification = verify_repository(Repository.open(str(path)))
    assert verification.is_sound, verification.all_findings


@pytest.mark.timeout(300)
def test_killed_while_publishing_the_previous_revision_stays_or_the_new_one_is_whole(edgefolio, made, tmp_path):
    """All but publishing is done before, so that each kill hits it."""
    repository = tmp_path / "repository"
    command = ("make", "-f", made.folder / "portfolio.yaml", "--work-dir", made.work, "--json")
    whole = edgefolio(*command, "--repository", tmp_path / "measured").seconds
    chance = random.Random(7)
    for _ in range(8):
        finished = edgefolio(*command, "--repository", repository, kill_after=chance.uniform(0.3, 1.0) * whole)
        assert finished.code in (0, -9), finished.stderr
        check_repository(repository)
    finished = edgefolio(*command, "--repository", repository)
    assert finished.code == 0
    assert finished.document["revision"] == 1
    assert finished.document["manifestSha256"] == made.finished.document["manifestSha256"]
    assert Repository.open(str(repository)).revisions("digits") == (1,)


def test_two_makers_do_not_share_a_work_directory(edgefolio, made):
    import fcntl

    with (made.work / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        finished = edgefolio("make", "-f", "portfolio.yaml", "--work-dir", "work", cwd=made.folder)
    assert finished.code == 2
    assert "another `edgefolio make` works in this directory" in finished.stderr
