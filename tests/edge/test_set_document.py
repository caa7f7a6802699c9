"""The set as an operator writes it: what a worker is told of it, and what is refused with what to mend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from draft_splits import SplitDraft, split_draft
from split_portfolios import write_set

from edgefolio.errors import IntegrityError, UserError
from edgefolio.repository import Publication, Repository
from edgefolio_edge.agent.split_serving import WorkerOptions
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.split_folder import require_servable
from edgefolio_edge.models.variants import split_named
from edgefolio_edge.peers.identity import make_identity
from edgefolio_edge.peers.set_document import SetDocument
from edgefolio_worker.records.member_file import WorkerMember
from edgefolio_worker.records.set_file import SetError, WorkerSet


@pytest.fixture
def draft(tmp_path: Path) -> SplitDraft:
    return split_draft(tmp_path / "draft")


def told(draft: SplitDraft, file: Path, rank: int = 0, identity: Path | None = None) -> WorkerSet:
    variant = draft.manifest.variant("split-two")
    return SetDocument.read(file).for_rank(rank, path=file, identity=identity, manifest=draft.manifest, variant=variant)


def test_a_worker_is_told_its_peers_with_names_resolved(draft: SplitDraft, tmp_path: Path) -> None:
    file = write_set(tmp_path / "set.yaml", [8004, 8005], abandonMilliseconds=None, predictedMilliseconds=None)
    file.write_text(file.read_text().replace("127.0.0.1:8005", "localhost:8005"))
    found = told(draft, file)
    assert (found.rank, found.number, found.listen) == (0, 1, "127.0.0.1:8004")
    (peer,) = found.peers
    assert peer.rank == 1
    assert peer.address in ("127.0.0.1:8005", "[::1]:8005")
    assert not found.is_encrypted
    # Five times the manifest's prediction of 2 ms, and at least 100; the only variant of one node.
    assert (found.abandon_milliseconds, found.predicted_milliseconds, found.fallback) == (100.0, 2.0, 102)
    assert WorkerSet.from_bytes(found.to_bytes()) == found


def test_certificates_lie_beside_the_file(draft: SplitDraft, tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_identity(tmp_path / name)
    file = write_set(tmp_path / "set.yaml", [8004, 8005], certificates=["one/certificate.pem", "two/certificate.pem"])
    found = told(draft, file, rank=1, identity=tmp_path / "two")
    assert found.is_encrypted
    assert found.peers[0].certificate == (tmp_path / "one" / "certificate.pem").read_text()
    assert Path(found.key).read_text().startswith("-----BEGIN PRIVATE KEY")
    with pytest.raises(UserError, match="--identity"):
        told(draft, file, rank=1)
    (tmp_path / "one" / "certificate.pem").write_text("nothing")
    with pytest.raises(UserError, match="certificate of worker 0"):
        told(draft, file, rank=1, identity=tmp_path / "two")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"number": -1}, "number"),
        ({"number": "one"}, "number"),
        ({"peers": []}, "peers"),
        ({"workers": []}, "workers"),
        ({"workers": [{"rank": 0, "address": "127.0.0.1:1"}] * 2}, "each once"),
        ({"workers": [{"rank": rank, "address": "127.0.0.1:1"} for rank in range(3)]}, "0 to 1"),
        ({"workers": [{"rank": rank, "address": "127.0.0.1"} for rank in range(2)]}, "address"),
        ({"workers": [{"rank": rank, "address": "127.0.0.1:0"} for rank in range(2)]}, "no port"),
        ({"workers": [{"rank": rank, "address": "10.0.0.1:1"} for rank in range(2)]}, "loopback"),
        ({"workers": [{"rank": rank, "address": "no.such.name.invalid:1"} for rank in range(2)]}, "resolved"),
        ({"plainLoopback": False}, "--identity"),
        ({"fallback": "split-two"}, "split over 2 nodes"),
        ({"fallback": "nobody"}, "no such variant"),
        ({"abandonMilliseconds": 0}, "abandonMilliseconds"),
        ({"predictedMilliseconds": ".nan"}, "predictedMilliseconds"),
    ],
)
def test_what_is_wrong_with_a_set_is_said(
    draft: SplitDraft, tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    file = write_set(tmp_path / "set.yaml", [8004, 8005], **changes)
    with pytest.raises(UserError, match=problem):
        told(draft, file)


@pytest.mark.parametrize("text", ["", "[", "- 1", "a: " + "[" * 5000, "\x00", "a: !!python/object:os.system {}"])
def test_what_is_no_set_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "set.yaml").write_text(text)
    with pytest.raises(UserError):
        SetDocument.read(tmp_path / "set.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        SetDocument.read(tmp_path / "missing.yaml")


def test_half_of_the_options_is_refused(tmp_path: Path) -> None:
    assert WorkerOptions.of(None, rank=None, identity=None, metrics_port=None) is None
    with pytest.raises(UserError, match="--rank"):
        WorkerOptions.of(None, rank=0, identity=None, metrics_port=None)
    with pytest.raises(UserError, match="--rank"):
        WorkerOptions.of(tmp_path, rank=None, identity=None, metrics_port=None)


def test_a_split_is_named_or_the_most_accurate_one(draft: SplitDraft) -> None:
    assert split_named(draft.manifest, None).name == split_named(draft.manifest, "split-two").name == "split-two"
    with pytest.raises(UserError, match="no such split"):
        split_named(draft.manifest, "dense")
    require_servable(draft.manifest, split_named(draft.manifest, None), 1)
    with pytest.raises(UserError, match="workers 0 to 1"):
        require_servable(draft.manifest, split_named(draft.manifest, None), 2)


def test_a_worker_fetches_its_own_shard_alone(draft: SplitDraft, tmp_path: Path) -> None:
    uri = str(tmp_path / "repository")
    manifest = Publication.open(uri).publish(draft.manifest, draft.files, history_limit=1).manifest
    variant = manifest.variant("split-two")
    store = ModelStore(tmp_path / "state", model="digits", worker_rank=1)
    assert not store.has(manifest, variant)
    store.fetch(Repository.open(uri), manifest, variant)
    folder = store.version_directory(101)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "plan.json",
        "shard-1/probe.safetensors",
        "shard-1/segment-0.onnx",
        "shard-1/segment-1.onnx",
        "worker.json",
    ]
    member = WorkerMember.from_bytes((folder / "worker.json").read_bytes())
    assert (member.rank, member.plan_sha256, member.fallback) == (1, variant.sha256, 102)
    assert store.require(manifest, variant) == folder / "plan.json"
    # The folder of one rank is nothing to another.
    other = ModelStore(tmp_path / "state", model="digits", worker_rank=0)
    assert not other.has(manifest, variant)
    other.fetch(Repository.open(uri), manifest, variant)
    assert other.has(manifest, variant)
    assert not (folder / "shard-1").exists()
    (folder / "shard-0" / "segment-1.onnx").write_bytes(b"something else")
    with pytest.raises(IntegrityError, match="missing or damaged"):
        other.require(manifest, variant)
    with pytest.raises(ValueError, match="no worker"):
        ModelStore(tmp_path / "third", model="digits").fetch(Repository.open(uri), manifest, variant)


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"null", b"{" * 3000, b'{"model": 1}', bytes(300_000), b"\xff"])
def test_a_set_file_that_is_none_is_refused_in_words(raw: bytes) -> None:
    with pytest.raises(SetError):
        WorkerSet.from_bytes(raw)
