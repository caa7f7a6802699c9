"""Profiles of a class of processors beside the manifest: written, read, refused, removed with their revision."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from draft_profiles import EPYC, PI, XEON, draft_node_profile
from drafts import publish_draft
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgefolio.errors import IntegrityError, UserError
from edgefolio.manifest import Manifest, PublishedManifest
from edgefolio.node_profile import MAXIMUM_PROFILE_BYTES, PublishedProfile
from edgefolio.repository import Publication, Repository, layout
from edgefolio.repository.profiles import (
    delete_profiles,
    fitting_profile,
    profile_classes,
    publish_profile,
    published_profile,
)
from edgefolio.repository.removal import remove_model
from edgefolio.repository.signature import SigningKey, VerificationKey, new_key_pair


def digest_of(manifest: Manifest) -> str:
    return PublishedManifest.of(manifest).sha256


def read(repository: Repository, manifest: Manifest, name: str, **expected: str) -> PublishedProfile | None:
    return published_profile(repository, manifest, name, manifest_sha256=digest_of(manifest), **expected)


def fitting(repository: Repository, manifest: Manifest, node):
    return fitting_profile(repository, manifest, node, manifest_sha256=digest_of(manifest))


@pytest.fixture
def local(tmp_path: Path) -> tuple[Repository, Manifest]:
    manifest = publish_draft(str(tmp_path / "repository"), tmp_path / "files")
    return Repository.open(str(tmp_path / "repository")), manifest


def test_a_profile_is_read_as_it_was_written_and_the_manifest_stays(uri: str, tmp_path: Path) -> None:
    manifest = publish_draft(uri, tmp_path / "files")
    repository = Repository.open(uri)
    before = repository.digest_of_manifest("digits", 1)
    profile = draft_node_profile(manifest, EPYC)
    published = publish_profile(repository, profile)
    assert published is not None
    found = read(repository, manifest, EPYC.class_name, sha256=published.sha256)
    assert found is not None
    assert found.profile == profile
    assert profile_classes(repository, "digits", 1) == (EPYC.class_name,)
    assert repository.digest_of_manifest("digits", 1) == before
    assert repository.revisions("digits") == (1,)
    # Another class is another file; the same class is written once, unless it is to be replaced.
    assert publish_profile(repository, draft_node_profile(manifest, XEON)) is not None
    other = draft_node_profile(manifest, EPYC, times=3)
    assert publish_profile(repository, other) is None
    assert publish_profile(repository, other, replace=True) is not None
    again = read(repository, manifest, EPYC.class_name)
    assert again is not None
    assert again.profile == other
    assert len(profile_classes(repository, "digits", 1)) == 2
    assert remove_model(repository, "digits") == (1,)
    assert repository.storage.names("revisions/digits/1.profiles") == ()
    # A number never means two things, and no profile waits for the next one.
    assert publish_draft(uri, tmp_path / "files", "two").revision == 2
    assert profile_classes(repository, "digits", 2) == ()


def test_profiles_go_with_the_revision_beyond_the_history(uri: str, tmp_path: Path, make_draft) -> None:
    publication, repository = Publication.open(uri), Repository.open(uri)
    for text in ("one", "two", "three"):
        draft = make_draft(text)
        manifest = publication.publish(draft.manifest, draft.files, history_limit=2).manifest
        publish_profile(repository, draft_node_profile(manifest, EPYC))
    assert [profile_classes(repository, "digits", number) for number in (1, 2, 3)] == [
        (),
        (EPYC.class_name,),
        (EPYC.class_name,),
    ]


def test_only_what_is_a_profile_is_deleted(local) -> None:
    repository, manifest = local
    publish_profile(repository, draft_node_profile(manifest, EPYC))
    folder = Path(repository.uri, "revisions/digits/1.profiles")
    (folder / "README").write_text("by hand")
    delete_profiles(repository, "digits")
    assert [path.name for path in folder.iterdir()] == ["README"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"revision": 2}, "revision 2"),
        ({"model": "letters"}, "'letters'"),
        ({"manifest_sha256": "1" * 64}, "another manifest"),
    ],
)
def test_a_profile_of_something_else_is_refused_and_the_manifests_own_is_used(local, change, problem) -> None:
    repository, manifest = local
    wrong = draft_node_profile(manifest, EPYC, **change)
    repository.storage.write(layout.profile_path("digits", 1, EPYC.class_name), wrong.to_bytes())
    with pytest.raises(IntegrityError, match=problem):
        read(repository, manifest, EPYC.class_name)
    found = fitting(repository, manifest, EPYC)
    assert found.published is None
    assert found.choice.measured.name is None
    assert problem in found.refused[0]


def test_a_profile_under_the_name_of_another_class_is_refused(local) -> None:
    repository, manifest = local
    raw = draft_node_profile(manifest, XEON).to_bytes()
    repository.storage.write(layout.profile_path("digits", 1, EPYC.class_name), raw)
    with pytest.raises(IntegrityError, match="of class intel-r-xeon"):
        read(repository, manifest, EPYC.class_name)


def test_other_bytes_than_the_ordered_ones_are_refused(local) -> None:
    repository, manifest = local
    first = publish_profile(repository, draft_node_profile(manifest, EPYC))
    publish_profile(repository, draft_node_profile(manifest, EPYC, times=9), replace=True)
    assert first is not None
    with pytest.raises(IntegrityError, match="digest"):
        read(repository, manifest, EPYC.class_name, sha256=first.sha256)


def test_a_profile_of_other_files_is_refused(local) -> None:
    repository, manifest = local
    profile = draft_node_profile(manifest, EPYC)
    variants = tuple(entry.model_copy(update={"sha256": "2" * 64}) for entry in profile.variants)
    for wrong in (variants, profile.variants[:1]):
        raw = profile.model_copy(update={"variants": wrong}).to_bytes()
        repository.storage.write(layout.profile_path("digits", 1, EPYC.class_name), raw)
        with pytest.raises(IntegrityError, match="not of the variants"):
            read(repository, manifest, EPYC.class_name)


def test_fields_of_a_newer_version_are_skipped_everywhere(local) -> None:
    repository, manifest = local
    document = json.loads(draft_node_profile(manifest, EPYC).to_bytes())

    def grown(value):
        if isinstance(value, dict):
            return {"newer": {"deep": [1]}, **{key: grown(entry) for key, entry in value.items()}}
        return [grown(entry) for entry in value] if isinstance(value, list) and value else value

    raw = json.dumps(grown(document)).encode()
    repository.storage.write(layout.profile_path("digits", 1, EPYC.class_name), raw)
    found = read(repository, manifest, EPYC.class_name)
    assert found is not None
    assert found.profile == draft_node_profile(manifest, EPYC)
    # The digest is that of the bytes, not of what was understood of them.
    assert found.raw == raw


def _poisoned(document: dict, path: tuple, value: object) -> bytes:
    inner = document
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("variants", 0, "latencies", 0, "meanMilliseconds"), 1e300),
        (("variants", 0, "latencies", 0, "meanMilliseconds"), -1),
        (("variants", 0, "latencies", 0, "p95Milliseconds"), 0),
        (("variants", 0, "latencies", 0, "batchSize"), 0),
        (("variants", 0, "latencies"), []),
        (("variants", 0, "memoryPeakBytes"), 2**70),
        (("variants", 0, "memoryPeakBytes"), -1),
        (("variants", 0, "name"), "../../etc"),
        (("variants",), []),
        (("environment", "cpuModel"), "\x1b[2J"),
        (("environment", "cpuModel"), "x" * 5000),
        (("environment", "instructionSets"), ["avx2"] * 300),
        (("className",), "../../current"),
        (("created",), "two\nlines"),
        (("busyPercent",), 1e9),
        (("schemaVersion",), "edgefolio.dev/profile/v9"),
    ],
)
def test_poisoned_figures_are_refused(local, path, value) -> None:
    repository, manifest = local
    raw = _poisoned(json.loads(draft_node_profile(manifest, EPYC).to_bytes()), path, value)
    repository.storage.write(layout.profile_path("digits", 1, EPYC.class_name), raw)
    with pytest.raises(IntegrityError):
        read(repository, manifest, EPYC.class_name)
    assert fitting(repository, manifest, EPYC).published is None


@pytest.mark.parametrize(
    "raw", [b"", b"\xff", b"[]", b"null", b"[" * 500_000, b'{"a": NaN}', b"{}" + b" " * (MAXIMUM_PROFILE_BYTES + 1)]
)
def test_what_is_no_profile_is_refused(local, raw) -> None:
    repository, manifest = local
    repository.storage.write(layout.profile_path("digits", 1, EPYC.class_name), raw)
    with pytest.raises(IntegrityError):
        read(repository, manifest, EPYC.class_name)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(position=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_a_profile_of_this_revision_still(local, position, byte) -> None:
    repository, manifest = local
    raw = bytearray(draft_node_profile(manifest, EPYC).to_bytes())
    raw[position % len(raw)] = byte
    repository.storage.write(layout.profile_path("digits", 1, EPYC.class_name), bytes(raw))
    found = fitting(repository, manifest, EPYC)
    if found.published is not None:
        assert found.published.profile.manifest_sha256 == digest_of(manifest)
        assert found.choice.is_own
    else:
        assert found.choice.measured.name is None


def test_the_nearest_of_those_that_are_there_is_taken(local) -> None:
    repository, manifest = local
    for node in (EPYC, PI):
        publish_profile(repository, draft_node_profile(manifest, node))
    found = fitting(repository, manifest, XEON)
    assert found.choice.measured.name == EPYC.class_name
    assert found.published is not None
    assert not found.choice.is_own
    assert fitting(repository, manifest, PI).choice.is_own
    unknown = fitting(repository, manifest, None)
    assert (unknown.published, unknown.choice.measured.name) == (None, None)


def test_a_name_is_no_way_out(local) -> None:
    repository, manifest = local
    for name in ("../1", "", "a/b", "A", "a" * 80):
        with pytest.raises(UserError, match="class of processors"):
            read(repository, manifest, name)


def test_with_a_key_only_what_it_signed_is_taken(local) -> None:
    repository, manifest = local
    pairs = [new_key_pair() for _ in range(2)]
    (key, other) = (SigningKey.parse(secret, field="key") for secret, _ in pairs)
    public = VerificationKey.parse(pairs[0][1].decode(), field="key")
    trusting = Repository(repository.storage, verification_key=public)
    own = EPYC.class_name

    publish_profile(repository, draft_node_profile(manifest, EPYC), signing_key=key)
    assert fitting(trusting, manifest, EPYC).published is not None
    # Unsigned, another's, and a signature that was for other bytes.
    publish_profile(repository, draft_node_profile(manifest, EPYC, times=5), replace=True)
    assert "not signed" in fitting(trusting, manifest, EPYC).refused[0]
    publish_profile(repository, draft_node_profile(manifest, EPYC, times=5), replace=True, signing_key=other)
    assert fitting(trusting, manifest, EPYC).published is None
    publish_profile(repository, draft_node_profile(manifest, EPYC), replace=True, signing_key=key)
    raw = draft_node_profile(manifest, EPYC, times=6).to_bytes()
    repository.storage.write(layout.profile_path("digits", 1, own), raw)
    assert fitting(trusting, manifest, EPYC).published is None
    # Who reads without a key believes whoever may write there.
    assert fitting(repository, manifest, EPYC).published is not None
