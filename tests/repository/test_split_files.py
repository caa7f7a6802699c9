"""A split is several files: published, fetched, repaired and removed together, and nothing else of its folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from draft_splits import SplitDraft, planned, split_draft

from edgefolio.errors import IntegrityError, UserError
from edgefolio.repository import Publication, Repository
from edgefolio.repository.removal import remove_model
from edgefolio_edge.check import look

OF_A_SHARD = ("probe.safetensors", "segment-0.onnx", "segment-1.onnx")
FILES = [f"shard-{rank}/{name}" for rank in (0, 1) for name in OF_A_SHARD]


def publish(uri: str, draft: SplitDraft, *, history_limit: int = 3) -> bool:
    published = Publication.open(uri).publish(draft.manifest, draft.files, history_limit=history_limit)
    return published.already_published


def names_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_all_files_are_published_and_fetched(uri: str, tmp_path: Path) -> None:
    draft = split_draft(tmp_path / "draft")
    assert not publish(uri, draft)
    assert publish(uri, draft)
    repository = Repository.open(uri)
    manifest = repository.current_manifest("digits")[1]
    (split,) = manifest.splits
    assert split.file == "101/plan.json"
    fetched = repository.fetch(manifest, split, tmp_path / "fetched" / "plan.json")
    assert names_below(fetched.parent) == sorted(["plan.json", *FILES])
    for name in ["plan.json", *FILES]:
        assert (fetched.parent / name).read_bytes() == (tmp_path / "draft" / "split" / name).read_bytes()
    assert look(uri, "digits").kind == "Published"


def test_missing_and_damaged_files_of_shards_are_put_back(tmp_path: Path) -> None:
    uri, draft = str(tmp_path / "repository"), split_draft(tmp_path / "draft")
    publish(uri, draft)
    folder = tmp_path / "repository" / "models" / "digits" / "101"
    (folder / "shard-0" / "segment-1.onnx").unlink()
    (folder / "shard-1" / "probe.safetensors").write_bytes(b"other")
    assert not publish(uri, draft)
    assert (folder / "shard-0" / "segment-1.onnx").is_file()
    assert publish(uri, draft)


@pytest.mark.parametrize("name", ["shard-0/segment-0.onnx", "shard-1/probe.safetensors"])
def test_a_shard_that_is_not_the_plans_is_not_published(tmp_path: Path, name: str) -> None:
    uri, draft = str(tmp_path / "repository"), split_draft(tmp_path / "draft")
    (tmp_path / "draft" / "split" / name).write_bytes(b"other")
    with pytest.raises(UserError, match="split-two"):
        publish(uri, draft)
    assert Repository.open(uri).models() == ()


@pytest.mark.parametrize("fault", ["missing", "truncated", "of another rank"])
def test_a_shard_that_is_not_the_plans_is_not_fetched(tmp_path: Path, fault: str) -> None:
    uri = str(tmp_path / "repository")
    publish(uri, split_draft(tmp_path / "draft"))
    shard = tmp_path / "repository" / "models" / "digits" / "101" / "shard-1" / "segment-1.onnx"
    if fault == "missing":
        shard.unlink()
    elif fault == "truncated":
        shard.write_bytes(shard.read_bytes()[:-1])
    else:
        shard.write_bytes((shard.parent.parent / "shard-0" / "segment-1.onnx").read_bytes())
    repository = Repository.open(uri)
    manifest = repository.current_manifest("digits")[1]
    with pytest.raises(IntegrityError) as error:
        repository.fetch(manifest, manifest.splits[0], tmp_path / "fetched" / "plan.json")
    assert error.value.location.endswith("101/shard-1/segment-1.onnx")
    assert not (tmp_path / "fetched" / "shard-1" / "segment-1.onnx").exists()


def test_the_check_of_a_repository_refuses_a_revision_whose_shard_is_missing(tmp_path: Path) -> None:
    uri = str(tmp_path / "repository")
    publish(uri, split_draft(tmp_path / "draft"))
    folder = tmp_path / "repository" / "models" / "digits" / "101"
    (folder / "shard-0" / "segment-0.onnx").unlink()
    assert look(uri, "digits").kind == "Refused"
    (folder / "plan.json").write_bytes(b"{}")
    assert look(uri, "digits").kind == "Refused"


def test_old_revisions_go_with_their_shards(uri: str, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        draft = split_draft(tmp_path / f"draft-{number}", created=f"2026-01-0{number}T00:00:00Z")
        publish(uri, draft, history_limit=1)
    storage = Repository.open(uri).storage
    assert storage.names("models/digits") == ("301", "302")
    assert storage.names("models/digits/301") == ("plan.json", "shard-0", "shard-1")


def test_removal_takes_shards_and_leaves_what_is_not_ours(tmp_path: Path) -> None:
    uri = str(tmp_path / "repository")
    publish(uri, split_draft(tmp_path / "draft"))
    folder = tmp_path / "repository" / "models" / "digits" / "101"
    for name in ("notes.txt", "shard-0/mine.txt", "shard-9/segment-0.onnx"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    assert remove_model(Repository.open(uri), "digits") == (1,)
    left = names_below(tmp_path / "repository" / "models")
    assert left == [f"digits/101/{name}" for name in ("notes.txt", "shard-0/mine.txt", "shard-9/segment-0.onnx")]


def test_a_plan_that_says_something_else_than_the_manifest_is_not_published(tmp_path: Path) -> None:
    plan, files = planned()
    draft = split_draft(tmp_path / "draft", plan=plan, files=files)
    other = plan.model_copy(update={"shares_percent": (60, 40)})
    (tmp_path / "draft" / "split" / "plan.json").write_bytes(other.to_bytes())
    variant = draft.manifest.splits[0].model_copy(update={"sha256": other.sha256, "size_bytes": len(other.to_bytes())})
    changed = draft.manifest.model_copy(update={"variants": (variant, draft.manifest.variants[1])})
    with pytest.raises(UserError, match="differ in sharesPercent"):
        publish(str(tmp_path / "repository"), SplitDraft(changed, draft.files))
