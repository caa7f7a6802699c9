"""Publishing: the pointer last, a number never for other bytes, nothing half current, whatever happens."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgefolio.errors import EXIT_BAD_INPUT, UserError
from edgefolio.manifest import sha256_of
from edgefolio.repository import Publication, Repository, layout, publication
from edgefolio.repository.publication import renumbered

STEPS = ("reserved", "variant small", "variant large", "manifest", "pointer", "history")


def everything_is_whole(uri: str, tmp_path: Path) -> int | None:
    """Fetch all of the current revision; its number, ``None`` if there is none."""
    repository = Repository.open(uri)
    if repository.current("digits") is None:
        return None
    _, manifest = repository.current_manifest("digits")
    for variant in manifest.variants:
        repository.fetch(manifest, variant, tmp_path / "fetched" / variant.sha256)
    return manifest.revision


def test_what_is_published_is_what_is_read(uri, make_draft, tmp_path):
    draft = make_draft()
    published = Publication.open(uri).publish(draft.manifest, draft.files, history_limit=3)
    repository = Repository.open(uri)
    pointer, manifest = repository.current_manifest("digits")
    assert published.is_current
    assert not published.already_published
    assert (pointer, manifest) == (published.pointer, published.manifest)
    assert manifest == renumbered(draft.manifest, 1)
    assert repository.models() == ("digits",)
    assert repository.revisions("digits") == (1,)
    for variant in manifest.variants:
        fetched = repository.fetch(manifest, variant, tmp_path / "cache" / f"{variant.name}.onnx")
        assert fetched.read_bytes() == draft.contents[variant.name]
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_the_same_content_is_published_once(uri, make_draft):
    draft = make_draft()
    first = Publication.open(uri).publish(draft.manifest, draft.files, history_limit=3)
    second = Publication.open(uri).publish(renumbered(draft.manifest, 7), draft.files, history_limit=3)
    assert second.already_published
    assert second.pointer == first.pointer
    assert Repository.open(uri).revisions("digits") == (1,)


def test_other_content_gets_another_number_and_the_pointer_moves_forward(uri, make_draft):
    publication = Publication.open(uri)
    one, two = make_draft("one"), make_draft("two")
    numbers = [
        publication.publish(draft.manifest, draft.files, history_limit=9).manifest.revision
        for draft in (one, two, one, two, two)
    ]
    assert numbers == [1, 2, 3, 4, 4]


def test_old_revisions_go_but_never_one_in_use(uri, make_draft, tmp_path):
    publication = Publication.open(uri)
    for text in ("one", "two", "three", "four"):
        draft = make_draft(text)
        published = publication.publish(draft.manifest, draft.files, history_limit=2, in_use={1})
    assert published.removed_revisions == (2,)
    repository = Repository.open(uri)
    assert repository.revisions("digits") == (1, 3, 4)
    assert repository.storage.names(layout.versions_folder("digits")) == ("101", "102", "301", "302", "401", "402")
    for number in (1, 3, 4):
        manifest = repository.manifest("digits", number)
        for variant in manifest.variants:
            repository.fetch(manifest, variant, tmp_path / "fetched" / variant.sha256)
    # The number of a removed revision stays spent.
    draft = make_draft("two")
    assert publication.publish(draft.manifest, draft.files, history_limit=2).manifest.revision == 5


def test_damaged_files_of_the_current_revision_are_put_back(uri, make_draft, tmp_path):
    draft = make_draft()
    publication = Publication.open(uri)
    publication.publish(draft.manifest, draft.files, history_limit=3)
    storage = publication.repository.storage
    storage.write(layout.variant_path("digits", "101/model.onnx"), b"damaged")
    storage.delete(layout.variant_path("digits", "102/model.onnx"))
    storage.write(layout.pointer_path("digits"), b"{")
    again = publication.publish(draft.manifest, draft.files, history_limit=3)
    assert again.manifest.revision == 1
    assert not again.already_published
    assert everything_is_whole(uri, tmp_path) == 1


@pytest.mark.parametrize(
    ("kind", "step"),
    # The steps are the same everywhere; two of them suffice for the slower server.
    [*(("directory", step) for step in STEPS), ("s3", "variant small"), ("s3", "pointer")],
)
def test_a_publisher_killed_after_any_step_leaves_a_whole_revision_current(
    kind: str,
    step: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    make_draft: Callable[..., object],
    start_publisher: Callable[..., subprocess.Popen[str]],
) -> None:
    uri = str(tmp_path / "repository") if kind == "directory" else request.getfixturevalue("s3_uri")
    old, new = make_draft("old"), make_draft("new")
    Publication.open(uri).publish(old.manifest, old.files, history_limit=3)
    process = start_publisher(uri, new, kill_at=step)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == -9, output
    published_already = STEPS.index(step) >= STEPS.index("pointer")
    assert everything_is_whole(uri, tmp_path) == (2 if published_already else 1)
    resumed = Publication.open(uri).publish(new.manifest, new.files, history_limit=3)
    assert resumed.manifest.revision == 2
    assert resumed.pointer.manifest_sha256 == sha256_of(renumbered(new.manifest, 2).to_bytes())
    assert everything_is_whole(uri, tmp_path) == 2
    assert Repository.open(uri).revisions("digits") == (1, 2)


def test_what_a_killed_publisher_wrote_goes_when_it_is_old(tmp_path, make_draft, start_publisher):
    uri = str(tmp_path / "repository")
    process = start_publisher(uri, make_draft("killed"), kill_at="variant small")
    process.communicate(timeout=60)
    publication = Publication.open(uri)
    for text in ("one", "two"):
        draft = make_draft(text)
        publication.publish(draft.manifest, draft.files, history_limit=1)
    assert publication.repository.storage.names(layout.versions_folder("digits")) == ("301", "302")


@pytest.mark.parametrize("kind", ["directory", "s3"])
def test_concurrent_publishers_get_numbers_of_their_own(kind, tmp_path, request, make_draft, start_publisher):
    uri = str(tmp_path / "repository") if kind == "directory" else request.getfixturevalue("s3_uri")
    drafts = [make_draft(text) for text in ("one", "two", "three", "one")]
    processes = [start_publisher(uri, draft) for draft in drafts]
    results = []
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        results.append(output.splitlines()[-1].split())
    numbers = [int(result[0]) for result in results]
    # The two publishers of the same content agree, unless one came after a newer revision was current.
    assert len({(number, sha256) for number, sha256, _ in results}) == len(set(numbers)) >= 3
    repository = Repository.open(uri)
    kept = repository.revisions("digits")
    assert kept == tuple(sorted(set(numbers)))[-3:]
    assert everything_is_whole(uri, tmp_path) == max(numbers)
    for number, sha256, _ in results:
        if int(number) in kept:
            assert sha256_of(repository.manifest("digits", int(number)).to_bytes()) == sha256


def test_a_slow_publisher_does_not_take_readers_back(uri, make_draft, tmp_path):
    slow, fast = make_draft("slow"), make_draft("fast")

    def overtake(step: str) -> None:
        if step == "manifest":
            Publication.open(uri).publish(fast.manifest, fast.files, history_limit=3)

    published = Publication.open(uri).publish(slow.manifest, slow.files, history_limit=3, on_step=overtake)
    assert published.manifest.revision == 1
    assert not published.is_current
    assert everything_is_whole(uri, tmp_path) == 2


def test_a_full_disk_is_the_users_error_and_leaves_the_old_revision_current(tmp_path, make_draft, start_publisher):
    uri = str(tmp_path / "repository")
    old, new = make_draft("old"), make_draft("new", size=200_000)
    Publication.open(uri).publish(old.manifest, old.files, history_limit=3)
    process = start_publisher(uri, new, largest_file=100_000)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == EXIT_BAD_INPUT, output
    assert "--repository" in output
    assert "no space left" in output
    assert everything_is_whole(uri, tmp_path) == 1
    assert not list(Path(uri).rglob("*.partial"))
    assert Publication.open(uri).publish(new.manifest, new.files, history_limit=3).manifest.revision == 2


def test_a_file_that_is_not_the_drafts_is_not_published(tmp_path, make_draft):
    draft = make_draft()
    draft.files["small"].write_bytes(b"other")
    with pytest.raises(UserError, match="small"):
        Publication.open(str(tmp_path / "repository")).publish(draft.manifest, draft.files, history_limit=3)
    assert Repository.open(str(tmp_path / "repository")).storage.names("") == ()


def test_a_place_that_cannot_be_written_is_the_users_error(tmp_path, make_draft):
    occupied = tmp_path / "occupied"
    occupied.write_text("a file")
    with pytest.raises(UserError, match="--repository"):
        Publication.open(str(occupied))
    draft = make_draft()
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "models").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="--repository"):
        Publication.open(str(folder)).publish(draft.manifest, draft.files, history_limit=3)
    shutil.rmtree(folder)


def test_a_manifest_that_no_reader_takes_is_not_published(tmp_path, make_draft, monkeypatch):
    draft = make_draft()
    length = len(draft.manifest.to_bytes())
    monkeypatch.setattr(publication, "MAXIMUM_MANIFEST_BYTES", length)
    uri = str(tmp_path / "repository")
    with pytest.raises(UserError, match="readers take") as refused:
        Publication.open(uri).publish(draft.manifest, draft.files, history_limit=3)
    assert refused.value.field == "spec.selection.maxVariants"
    assert Repository.open(uri).current("digits") is None
