"""Removing one model: all of it, nothing else, in an order that no reader notices; interrupted it goes on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from draft_profiles import EPYC, draft_node_profile
from drafts import publish_draft

from edgefolio.errors import IntegrityError
from edgefolio.repository import Repository
from edgefolio.repository.profiles import profile_classes, publish_profile
from edgefolio.repository.removal import remove_model
from edgefolio_edge.check import look
from edgefolio_pruner import reclaim


def publish(uri: str, folder: Path, *texts: str, model: str = "digits") -> None:
    for text in texts:
        publish_draft(uri, folder / model, text, model=model)


def test_all_of_one_model_goes_and_nothing_else(uri: str, tmp_path: Path) -> None:
    publish(uri, tmp_path, "one", "two")
    publish(uri, tmp_path, "one", model="letters")
    repository = Repository.open(uri)
    (letters,) = (repository.current_manifest("letters")[1],)
    assert remove_model(repository, "digits") == (1, 2)
    assert repository.models() == ("letters",)
    assert repository.revisions("digits") == ()
    assert repository.storage.names("models/digits") == ()
    for variant in letters.variants:
        repository.fetch(letters, variant, tmp_path / variant.name)
    # Once more, and of a model that never was: nothing happens.
    assert remove_model(repository, "digits") == ()
    assert remove_model(repository, "never") == ()
    # A number never means two things.
    publish(uri, tmp_path, "three")
    assert repository.revisions("digits") == (3,)


@pytest.mark.parametrize("after", ["pointer", "manifests", "profiles", "files"])
def test_interrupted_it_leaves_nothing_that_readers_stumble_over_and_goes_on(
    uri: str, tmp_path: Path, after: str
) -> None:
    publish(uri, tmp_path, "one", "two")
    measured = draft_node_profile(Repository.open(uri).current_manifest("digits")[1], EPYC)
    assert publish_profile(Repository.open(uri), measured) is not None

    class Interrupted(Exception):
        pass

    def stop(step: str) -> None:
        if step == after:
            raise Interrupted

    repository = Repository.open(uri)
    with pytest.raises(Interrupted):
        remove_model(repository, "digits", on_step=stop)
    assert repository.current("digits") is None
    assert look(uri, "digits").kind == "Nothing"
    remove_model(repository, "digits")
    assert repository.storage.names("models/digits") == ()
    assert profile_classes(repository, "digits", 2) == ()


def test_what_others_put_there_stays(tmp_path: Path) -> None:
    uri = str(tmp_path / "repository")
    publish(uri, tmp_path, "one")
    note = tmp_path / "repository" / "models" / "digits" / "101" / "README"
    note.write_text("by hand")
    remove_model(Repository.open(uri), "digits")
    assert note.read_text() == "by hand"


def test_a_model_s_name_is_no_way_out(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    with pytest.raises(Exception, match="name of a model"):
        remove_model(Repository.open(str(tmp_path / "repository")), "../other")


def test_the_job_says_what_went_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEFOLIO_TERMINATION_MESSAGE", str(tmp_path / "message"))
    publish(str(tmp_path / "repository"), tmp_path, "one")
    assert reclaim.main([str(tmp_path / "repository"), "digits"]) == 0
    assert "revisions 1 of model 'digits'" in capsys.readouterr().out
    assert not (tmp_path / "message").exists()
    assert reclaim.main([str(tmp_path / "absent"), "digits"]) == 1
    assert "spec.repository.uri" in (tmp_path / "message").read_text()


def test_the_job_loads_nothing_heavy() -> None:
    """Its pod is granted half a gibibyte, and it runs at once."""
    script = (
        "import sys, edgefolio_pruner.reclaim, edgefolio_edge.check, edgefolio.repository.remote.s3_storage, "
        "edgefolio.repository.remote.http_storage; "
        "print([name for name in ('torch', 'onnx', 'onnxruntime', 'numpy', 'tritonclient') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def damaged(uri: str, path: str, change: Callable[[bytes], bytes | None]) -> None:
    storage = Repository.open(uri).storage
    raw = storage.read(path, maximum_bytes=1 << 20)
    assert raw is not None
    after = change(raw)
    storage.delete(path) if after is None else storage.write(path, after)


def test_a_look_finds_the_current_revision_a_number_and_a_digest(uri: str, tmp_path: Path) -> None:
    publish(uri, tmp_path, "one", model="letters")
    assert look(uri, "digits").kind == "Nothing"
    publish(uri, tmp_path, "one", "two")
    repository = Repository.open(uri)
    digests = {number: repository.digest_of_manifest("digits", number) for number in (1, 2)}
    for found, number in (
        (look(uri, "digits"), 2),
        (look(uri, "digits", revision=1), 1),
        (look(uri, "digits", revision=2), 2),
        (look(uri, "digits", manifest_digest=digests[1]), 1),
    ):
        assert found.kind == "Published", found
        assert (found.revision, found.manifest_digest) == (number, digests[number])
        assert [variant.name for variant in found.variants] == ["small", "large"]
    for missing in (look(uri, "digits", revision=7), look(uri, "digits", manifest_digest="f" * 64), look(uri, "x")):
        assert missing.kind == "Nothing"


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        ("revisions/digits/1.json", lambda raw: raw + b" ", "digest"),
        ("revisions/digits/current.json", lambda raw: b"{", "pointer"),
        ("models/digits/101/model.onnx", lambda raw: None, "missing"),
    ],
)
def test_a_look_refuses_what_is_not_what_it_should_be(
    uri: str, tmp_path: Path, path: str, change: Callable[[bytes], bytes | None], said: str
) -> None:
    publish(uri, tmp_path, "one")
    damaged(uri, path, change)
    report = look(uri, "digits")
    assert report.kind == "Refused", report
    assert said in report.one_line()


def test_a_look_says_that_it_may_pass(monkeypatch: pytest.MonkeyPatch, s3_uri: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert look(s3_uri, "digits").kind == "Failed"
    assert look("/no/such/folder", "digits").kind == "BadInput"


def test_a_refused_manifest_raises_no_matter_how_it_is_read(tmp_path: Path) -> None:
    uri = str(tmp_path / "repository")
    publish(uri, tmp_path, "one")
    damaged(uri, "revisions/digits/1.json", lambda raw: raw.replace(b"small", b"smell"))
    with pytest.raises(IntegrityError):
        Repository.open(uri).current_manifest("digits")
