"""``edgefolio verify`` of a split: every file by its digest, every segment by its probe, and all together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from draft_splits import node, planned, segment, split_draft, two_workers

from edgefolio.records.split_plan import SplitPlan
from edgefolio.repository import Publication, Repository
from edgefolio_edge.models.repository_audit import Finding, verify_repository


def verified(uri: str) -> tuple[tuple[str, ...], tuple[Finding, ...]]:
    (revision,) = verify_repository(Repository.open(uri)).revisions
    return revision.variants, revision.findings


def published(tmp_path: Path, **draft: object) -> tuple[str, Path]:
    made = split_draft(tmp_path / "draft", **draft)  # type: ignore[arg-type]
    uri = str(tmp_path / "repository")
    Publication.open(uri).publish(made.manifest, made.files, history_limit=1)
    return uri, tmp_path / "repository" / "models" / "digits" / "101"


def test_a_sound_split(tmp_path: Path) -> None:
    uri, _ = published(tmp_path)
    assert verified(uri) == (("split-two", "dense"), ())


def truncated(folder: Path) -> str:
    path = folder / "shard-0" / "segment-1.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    return "shard-0/segment-1.onnx"


def of_another_rank(folder: Path) -> str:
    path = folder / "shard-1" / "segment-0.onnx"
    path.write_bytes((folder / "shard-0" / "segment-0.onnx").read_bytes())
    return "shard-1/segment-0.onnx"


def without_a_probe(folder: Path) -> str:
    (folder / "shard-1" / "probe.safetensors").unlink()
    return "shard-1/probe.safetensors"


def another_plan(folder: Path) -> str:
    (folder / "plan.json").write_bytes(b"{}")
    return "plan.json"


@pytest.mark.parametrize("damage", [truncated, of_another_rank, without_a_probe, another_plan])
def test_files_that_are_not_what_was_published_are_named(tmp_path: Path, damage: Callable[[Path], str]) -> None:
    uri, folder = published(tmp_path)
    name = damage(folder)
    passed, findings = verified(uri)
    assert passed == ("dense",)
    assert [finding.location.removeprefix(uri) for finding in findings] == [f"/models/digits/101/{name}"]


def test_a_plan_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    plan, files = planned()
    document = json.loads(plan.to_bytes()) | {"more": 1}
    raw = json.dumps(document).encode()
    uri, folder = published(tmp_path)
    # Whoever can write both the plan and the manifest that vouches for it still does not get past its schema.
    (folder / "plan.json").write_bytes(raw)
    made = split_draft(tmp_path / "other", plan=plan, files=files, raw=raw)
    (tmp_path / "repository" / "revisions" / "digits" / "current.json").unlink()
    (tmp_path / "repository" / "revisions" / "digits" / "1.json").write_bytes(made.manifest.to_bytes())
    _, findings = verified(uri)
    (found,) = [finding for finding in findings if finding.location.endswith("plan.json")]
    assert "more" in found.problem


def test_a_segment_that_computes_something_else_is_found_by_its_probe(tmp_path: Path) -> None:
    wrong = two_workers()
    joined = [
        node("Concat", ["x0_own", "x0_from_0"], ["all"], axis=1),
        node("Constant", [], ["one"], value_ints=[1]),
        node("ReduceMin", ["all", "one"], ["output"], keepdims=1),
    ]
    wrong["shard-1/segment-1.onnx"] = segment(joined, ["x0_own", "x0_from_0"], ["output"])
    right, right_files = planned()
    other, other_files = planned(wrong)
    # The wrong segment with the digest that belongs to it, beside the probe of the right one.
    shard = other.shards[1].model_copy(update={"probe": right.shards[1].probe})
    plan = SplitPlan.model_validate(other.model_copy(update={"shards": (right.shards[0], shard)}).model_dump())
    files = {**right_files, "shard-1/segment-1.onnx": other_files["shard-1/segment-1.onnx"]}
    uri, _ = published(tmp_path, plan=plan, files=files)
    passed, findings = verified(uri)
    assert passed == ("dense",)
    assert [finding.location.removeprefix(uri) for finding in findings] == ["/models/digits/101/shard-1/segment-1.onnx"]
    assert "output output is not the probe's" in findings[0].problem


def test_shards_that_are_sound_apart_but_answer_wrongly_together_are_found(tmp_path: Path) -> None:
    wrong = two_workers()
    joined = [
        node("Concat", ["x0_own", "x0_from_1"], ["all"], axis=1),
        node("Constant", [], ["one"], value_ints=[1]),
        node("ReduceMin", ["all", "one"], ["output"], keepdims=1),
    ]
    wrong["shard-0/segment-1.onnx"] = segment(joined, ["x0_own", "x0_from_1"], ["output"])
    plan, files = planned(wrong)
    uri, _ = published(tmp_path, plan=plan, files=files)
    _, findings = verified(uri)
    assert ["wrong together" in finding.problem for finding in findings] == [True]
