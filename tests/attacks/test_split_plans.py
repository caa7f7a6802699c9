"""Threat: a split whose manifest or plan kills what reads it, or leads out of the folder of its version."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from draft_splits import planned, split_draft

from edgefolio.commands.splits import StatedSet, split_documents, split_lines
from edgefolio.contract.job_report import PublishedReport
from edgefolio.decision.explain import Explanation, explain_choice
from edgefolio.decision.profiles import profiles_from_manifest
from edgefolio.decision.types import Objectives
from edgefolio.errors import IntegrityError
from edgefolio.manifest import Manifest, sha256_of
from edgefolio.records.split_plan import MAXIMUM_PLAN_BYTES, parse_plan
from edgefolio.repository import Publication, Repository
from edgefolio.specification.serving import Switching
from edgefolio_edge.check import look
from edgefolio_edge.models.rehearsal import require_usable
from edgefolio_edge.models.repository_audit import verify_repository
from edgefolio_split.executor import SplitExecutor

EXTREMES: tuple[Any, ...] = (
    None,
    True,
    "",
    "x" * 100_000,
    "../../etc/passwd",
    "a\nb",
    "\x1b[2J",
    [],
    {},
    -1,
    0,
    0.5,
    2**53,
    2**64,
    1e308,
    float("nan"),
    [1] * 5000,
    json.loads("[" * 30 + "]" * 30),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(document: Any, path: tuple[Any, ...], value: Any) -> bytes:
    found = copy.deepcopy(document)
    target = found
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return json.dumps(found).encode()


def explained(manifest: Manifest, *, cpu_factor: float) -> dict[str, Explanation]:
    """The choice beside a complete set of two workers, for each split, on a node that is this much slower."""
    return {
        variant.name: explain_choice(
            profiles=profiles_from_manifest(manifest, with_splits=True),
            objectives=Objectives(latency_p95_milliseconds=20.0),
            switching=Switching(),
            compute_factor=cpu_factor,
            worker_set=StatedSet(workers=2).of(variant, link=None, cpu_factor=cpu_factor, rate=1.0),
        )
        for variant in manifest.splits
    }


def test_every_value_of_a_split_in_a_manifest_is_used_or_refused(tmp_path: Path) -> None:
    document = json.loads(split_draft(tmp_path / "draft").manifest.to_bytes())
    used, refused = 0, []
    for path in places(document["variants"][0]["split"]):
        for value in EXTREMES:
            raw = changed(document, ("variants", 0, "split", *path), value)
            try:
                manifest = Manifest.from_bytes(raw, location="1.json")
                require_usable(manifest, location="1.json")
            except IntegrityError as error:
                refused.append(str(error))
                continue
            used += 1
            assert Manifest.from_bytes(manifest.to_bytes(), location="x") == manifest
            PublishedReport.of(manifest, digest="0" * 64).to_message()
            for factor in (1e9, 1e-6):
                found, workers = explained(manifest, cpu_factor=factor), StatedSet(workers=2)
                documents = split_documents(manifest, found, stated=workers, link=None, cpu_factor=factor)
                json.dumps(documents, allow_nan=False)
                assert all(line.isprintable() for line in split_lines(manifest, found, stated=workers, link=None))
    assert used > 10
    assert all(text.isprintable() for text in refused)


def test_every_value_of_a_plan_is_used_or_refused() -> None:
    plan, files = planned()
    document, refused = json.loads(plan.to_bytes()), []
    for path in places(document):
        for value in EXTREMES:
            try:
                read = parse_plan(changed(document, path, value), location="plan.json")
                SplitExecutor(read, files.__getitem__)
            except IntegrityError as error:
                refused.append(str(error))
    assert refused
    assert all(text.isprintable() for text in refused)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[" * 100_000, b"{}" + b" " * MAXIMUM_PLAN_BYTES, b'{"owners": ' + b"9" * 1000 + b"}"]
)
def test_a_text_that_is_no_plan_is_refused(raw: bytes) -> None:
    with pytest.raises(IntegrityError):
        parse_plan(raw, location="plan.json")


@pytest.mark.parametrize("name", ["../102/model.onnx", "/etc/passwd", "shard-0/../../102/model.onnx", "shard-0"])
def test_a_path_out_of_the_folder_is_refused_by_all_readers(tmp_path: Path, name: str) -> None:
    draft, uri = split_draft(tmp_path / "draft"), str(tmp_path / "repository")
    Publication.open(uri).publish(draft.manifest, draft.files, history_limit=1)
    folder = tmp_path / "repository"
    plan = json.loads((folder / "models" / "digits" / "101" / "plan.json").read_bytes())
    plan["shards"][0]["segments"][0]["file"] = name
    raw = json.dumps(plan).encode()
    (folder / "models" / "digits" / "101" / "plan.json").write_bytes(raw)
    # Whoever writes the plan may write the manifest and the pointer as well.
    manifest = json.loads((folder / "revisions" / "digits" / "1.json").read_bytes())
    manifest["variants"][0] |= {"sha256": sha256_of(raw), "sizeBytes": len(raw)}
    written = json.dumps(manifest).encode()
    (folder / "revisions" / "digits" / "1.json").write_bytes(written)
    pointer = json.loads((folder / "revisions" / "digits" / "current.json").read_bytes())
    pointer["manifestSha256"] = sha256_of(written)
    (folder / "revisions" / "digits" / "current.json").write_text(json.dumps(pointer))
    repository = Repository.open(uri)
    found = repository.current_manifest("digits")[1]
    with pytest.raises(IntegrityError, match=r"shards\.0\.segments\.0\.file"):
        repository.fetch(found, found.splits[0], tmp_path / "fetched" / "plan.json")
    assert sorted(path.name for path in (tmp_path / "fetched").rglob("*")) == ["plan.json"]
    assert look(uri, "digits").kind == "Refused"
    assert not verify_repository(repository).is_sound
