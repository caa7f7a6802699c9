"""Reading: nothing is believed that is not verified, and every refusal says what is wrong where."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgefolio.errors import IntegrityError, UserError
from edgefolio.manifest import sha256_of
from edgefolio.repository import Publication, Repository, layout


@pytest.fixture
def published(uri, make_draft):
    draft = make_draft()
    Publication.open(uri).publish(draft.manifest, draft.files, history_limit=3)
    return Repository.open(uri)


@pytest.fixture
def local(tmp_path, make_draft):
    draft = make_draft()
    Publication.open(str(tmp_path / "repository")).publish(draft.manifest, draft.files, history_limit=3)
    return Repository.open(str(tmp_path / "repository"))


def fetch_first(repository: Repository, destination: Path) -> Path:
    _, manifest = repository.current_manifest("digits")
    return repository.fetch(manifest, manifest.variants[0], destination)


@pytest.mark.parametrize("change", ["other bytes", "truncated", "longer", "missing"])
def test_a_damaged_variant_never_reaches_its_name(published, tmp_path, change):
    path = layout.variant_path("digits", "101/model.onnx")
    content = published.storage.read(path, maximum_bytes=10**6)
    if change == "missing":
        published.storage.delete(path)
    else:
        changed = {"other bytes": b"x" + content[1:], "truncated": content[:-1], "longer": content + b"x"}[change]
        published.storage.write(path, changed)
    with pytest.raises(IntegrityError, match=r"101/model\.onnx"):
        fetch_first(published, tmp_path / "cache" / "model.onnx")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_manifest_with_another_digest_is_refused(published):
    path = layout.manifest_path("digits", 1)
    raw = published.storage.read(path, maximum_bytes=10**6)
    published.storage.write(path, raw.replace(b'"seed": 0', b'"seed": 1'))
    with pytest.raises(IntegrityError, match="digest"):
        published.current_manifest("digits")
    with pytest.raises(IntegrityError, match="digest"):
        published.manifest("digits", 1, sha256=sha256_of(raw))


def rewrite(repository: Repository, change) -> None:
    """Change the manifest's document and make the pointer agree, as one who may write to the bucket can."""
    path = layout.manifest_path("digits", 1)
    document = json.loads(repository.storage.read(path, maximum_bytes=10**6))
    change(document)
    raw = json.dumps(document).encode()
    repository.storage.write(path, raw)
    pointer = json.loads(repository.storage.read(layout.pointer_path("digits"), maximum_bytes=10**6))
    pointer["manifestSha256"] = sha256_of(raw)
    repository.storage.write(layout.pointer_path("digits"), json.dumps(pointer).encode())


@pytest.mark.parametrize(
    "file",
    ["../../../etc/passwd", "/etc/passwd", "101/../102/model.onnx", "101/model.onnx/../../x", "..", "101\\model.onnx"],
)
def test_a_path_that_leaves_the_repository_is_refused(local, file):
    rewrite(local, lambda document: document["variants"][0].update(file=file))
    with pytest.raises(IntegrityError, match="file"):
        local.current_manifest("digits")


def test_another_models_or_revisions_files_are_refused(local):
    rewrite(local, lambda document: document["variants"][0].update(file="201/model.onnx"))
    with pytest.raises(IntegrityError, match=r"101/model\.onnx"):
        local.current_manifest("digits")
    rewrite(local, lambda document: document.update(model="other"))
    with pytest.raises(IntegrityError):
        local.current_manifest("digits")


def test_a_link_that_leaves_the_repository_is_refused(local, tmp_path):
    outside = tmp_path / "outside.onnx"
    inside = Path(local.uri) / "models/digits/101/model.onnx"
    outside.write_bytes(inside.read_bytes())
    inside.unlink()
    inside.symlink_to(outside)
    with pytest.raises(IntegrityError, match="leaves the repository"):
        fetch_first(local, tmp_path / "cache" / "model.onnx")


@pytest.mark.parametrize("which", ["manifest", "pointer"])
def test_another_schema_version_is_refused(published, which):
    path = layout.manifest_path("digits", 1) if which == "manifest" else layout.pointer_path("digits")
    raw = published.storage.read(path, maximum_bytes=10**6)
    published.storage.write(path, raw.replace(f"edgefolio.dev/{which}/v1".encode(), b"edgefolio.dev/other/v9"))
    with pytest.raises(IntegrityError, match=r"[sS]chema"):
        published.manifest("digits", 1) if which == "manifest" else published.current("digits")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(raw=st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode)))
def test_no_pointer_or_manifest_bytes_do_more_than_raise(local, raw):
    local.storage.write(layout.pointer_path("digits"), raw)
    with pytest.raises(IntegrityError):
        local.current("digits")
    path = layout.manifest_path("digits", 9)
    local.storage.write(path, raw)
    with pytest.raises(IntegrityError):
        local.manifest("digits", 9)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(model=st.text(max_size=80))
def test_a_models_name_is_one_harmless_segment(local, model):
    try:
        path = layout.pointer_path(model)
    except UserError:
        return
    assert path.count("/") == 2
    assert ".." not in path
    assert local.current(model) is None or model == "digits"


@pytest.mark.parametrize("model", ["../digits", "", "a/b", ".", "a b", "x" * 64, "a\n"])
def test_a_bad_model_name_is_the_users_error(local, model):
    with pytest.raises(UserError, match="--model"):
        local.current_manifest(model)


@pytest.mark.parametrize("uri", ["nosuch://host/path", "pvc:claim", "", "zz:x"])
def test_an_unknown_scheme_is_the_users_error(uri):
    with pytest.raises(UserError, match="--repository"):
        Repository.open(uri)


def test_an_unreadable_place_is_the_users_error(tmp_path, s3_uri, monkeypatch):
    file = tmp_path / "file"
    file.write_text("x")
    for uri in (str(file), str(tmp_path / "missing"), "s3://no-such-bucket-here/portfolios"):
        with pytest.raises(UserError, match="--repository"):
            Repository.open(uri)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="AWS_ENDPOINT_URL"):
        Repository.open(s3_uri)


def test_nothing_published_is_the_users_error(uri, make_draft):
    Publication.open(uri)
    repository = Repository.open(uri)
    assert repository.models() == ()
    assert repository.current("digits") is None
    with pytest.raises(UserError, match="nothing is published"):
        repository.current_manifest("digits")
    with pytest.raises(UserError, match="no revision 3"):
        repository.manifest("digits", 3)


def test_a_transfer_goes_on_where_it_stopped(published, tmp_path):
    _, manifest = published.current_manifest("digits")
    variant = manifest.variants[0]
    content = published.storage.read(layout.variant_path("digits", variant.file), maximum_bytes=10**6)
    folder = tmp_path / "cache"
    folder.mkdir()
    partial = folder / f".model.onnx.{variant.sha256[:16]}.partial"
    partial.write_bytes(content[:1000])
    inode = partial.stat().st_ino
    fetched = published.fetch(manifest, variant, folder / "model.onnx")
    assert fetched.read_bytes() == content
    assert fetched.stat().st_ino == inode
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]
    # A rest that is not the file's beginning is dropped, and the file is fetched from its start.
    fetched.unlink()
    partial.write_bytes(b"not its beginning")
    assert published.fetch(manifest, variant, folder / "model.onnx").read_bytes() == content


def test_a_wrong_file_at_the_destination_is_replaced_and_a_right_one_kept(published, tmp_path):
    destination = tmp_path / "model.onnx"
    destination.write_bytes(b"wrong")
    fetched = fetch_first(published, destination)
    inode = fetched.stat().st_ino
    assert fetched.read_bytes() != b"wrong"
    assert fetch_first(published, destination).stat().st_ino == inode


def test_a_throttled_transfer_is_whole(local, tmp_path):
    _, manifest = local.current_manifest("digits")
    fetched = local.fetch(manifest, manifest.variants[0], tmp_path / "model.onnx", maximum_bytes_per_second=20_000)
    assert sha256_of(fetched.read_bytes()) == manifest.variants[0].sha256


def test_two_readers_of_one_destination_do_not_disturb_each_other(local, tmp_path):
    _, manifest = local.current_manifest("digits")
    variant = manifest.variants[0]
    failures = []

    def fetch() -> None:
        try:
            for _ in range(20):
                path = local.fetch(manifest, variant, tmp_path / "model.onnx", maximum_bytes_per_second=2_000_000)
                assert sha256_of(path.read_bytes()) == variant.sha256
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [path.name for path in tmp_path.glob("*model.onnx*")] == ["model.onnx"]
