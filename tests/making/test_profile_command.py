"""``edgefolio profile`` and its Job, with real ONNX files and the real runtime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from draft_manifests import draft_latency, draft_manifest, draft_profile, draft_variant
from faulty_server import faulty_server, files_of
from onnx import TensorProto, helper, numpy_helper
from s3_server import s3_endpoint, s3_uri

from edgefolio.commands.main import main
from edgefolio.contract.job_report import FailureReport, ProfiledReport, report_of_message
from edgefolio.manifest import Probe, Signature, Tensor, TensorSignature
from edgefolio.node_profile import PublishedProfile
from edgefolio.processor import this_processor
from edgefolio.repository import Publication, Repository, layout
from edgefolio.repository.profiles import fitting_profile, profile_classes
from edgefolio.repository.signature import KEY_VARIABLE, SigningKey, VerificationKey, new_key_pair
from edgefolio_pruner import profile_job
from edgefolio_pruner.profiling import revision

__all__ = ["s3_endpoint", "s3_uri"]

WIDTH = {"small": 8, "large": 512}


def linear(width: int) -> bytes:
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["input", "w"], ["inner"]),
            helper.make_node("MatMul", ["inner", "v"], ["output"]),
        ],
        "model",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 16])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 2])],
        [
            numpy_helper.from_array(np.ones((16, width), np.float32), "w"),
            numpy_helper.from_array(np.ones((width, 2), np.float32), "v"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    raw: bytes = model.SerializeToString()
    onnx.checker.check_model(model)
    return raw


class Place:
    """A repository of two variants that can be run."""

    def __init__(self, folder: Path) -> None:
        self.uri, self.folder = str(folder / "portfolios"), folder
        contents = {name: linear(width) for name, width in WIDTH.items()}
        probe = Probe(
            inputs=(Tensor(name="input", shape=(1, 16), values=(1.0,) * 16),),
            outputs=(Tensor(name="output", shape=(1, 2), values=(1.0,) * 2),),
            absolute_tolerance=0.1,
        )
        variants = [
            draft_variant(
                name,
                rank,
                content,
                probe=probe,
                profiles=(draft_profile(draft_latency(batch=1), draft_latency(batch=4)),),
            )
            for rank, (name, content) in enumerate(contents.items(), 1)
        ]
        self.draft = draft_manifest(
            variants,
            model="toy",
            request_batch_size=4,
            signature=Signature(
                inputs=(TensorSignature(name="input", datatype="FP32", shape=(16,)),),
                outputs=(TensorSignature(name="output", datatype="FP32", shape=(2,)),),
            ),
        )
        self.files = {}
        for name, content in contents.items():
            self.files[name] = folder / f"{name}.onnx"
            self.files[name].write_bytes(content)

    def publish(self, key: SigningKey | None = None) -> Place:
        self.published = Publication.open(self.uri).publish(self.draft, self.files, history_limit=3, signing_key=key)
        return self

    @property
    def path(self) -> Path:
        return Path(self.uri, layout.profile_path("toy", 1, this_processor().class_name))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGEFOLIO_TERMINATION_MESSAGE", str(tmp_path / "message"))
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    return Place(tmp_path).publish()


def edgefolio(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, captured.out, captured.err


QUICK = ("--samples", "20", "--rounds", "2", "--allow-busy")


def test_the_command_measures_and_the_next_call_finds_it(capsys: pytest.CaptureFixture[str], place: Place) -> None:
    code, out, err = edgefolio(capsys, "profile", place.uri, "--json", *QUICK)
    assert code == 0, err
    document = json.loads(out)
    assert document["class"] == this_processor().class_name
    assert document["wasThere"] is False
    assert [entry["name"] for entry in document["variants"]] == ["large", "small"]
    assert all(entry["p95Milliseconds"] > 0 for entry in document["variants"])
    raw = place.path.read_bytes()
    published = PublishedProfile.from_bytes(raw, location="here", sha256=document["sha256"])
    assert [entry.batch_size for entry in published.profile.variants[0].latencies] == [1, 4]
    # What was fetched is not kept.
    assert not list((place.folder / "cache").rglob("*.onnx"))
    # Idempotent: the second call measures nothing; --again does, and replaces it.
    code, out, _ = edgefolio(capsys, "profile", place.uri, "--json")
    assert (code, json.loads(out)["wasThere"], json.loads(out)["sha256"]) == (0, True, document["sha256"])
    assert place.path.read_bytes() == raw
    code, out, _ = edgefolio(capsys, "profile", place.uri, "--json", "--again", *QUICK)
    assert (code, json.loads(out)["wasThere"]) == (0, False)
    assert place.path.read_bytes() != raw
    # The profile is used, and explain says so.
    file = place.folder / "portfolio.yaml"
    file.write_text(
        "apiVersion: edgefolio.dev/v1alpha1\nkind: ModelPortfolio\nmetadata: {name: toy}\n"
        f"spec: {{repository: {{uri: {place.uri}}}, serving: {{modelName: toy}}}}\n"
    )
    code, out, _ = edgefolio(capsys, "explain", "-f", file, "--json")
    assert json.loads(out)["profile"]["class"] == this_processor().class_name
    assert json.loads(out)["profile"]["isOfThisNode"] is True
    code, out, _ = edgefolio(capsys, "explain", "-f", file, "--json", "--profile", "manifest")
    assert json.loads(out)["profile"]["ofManifest"] is True
    code, _, err = edgefolio(capsys, "explain", "-f", file, "--profile", "another-0123")
    assert code == 2
    assert "--profile" in err


def test_verify_looks_at_profiles(capsys: pytest.CaptureFixture[str], place: Place) -> None:
    edgefolio(capsys, "profile", place.uri, *QUICK)
    _, out, _ = edgefolio(capsys, "verify", place.uri)
    assert place.path.name not in out.replace("\n", "")
    place.path.write_bytes(place.path.read_bytes().replace(b'"revision": 1', b'"revision": 2'))
    code, out, _ = edgefolio(capsys, "verify", place.uri)
    assert code != 0
    assert "it is the profile of 'toy', revision 2" in " ".join(out.split())


def test_other_threads_are_another_measurement(capsys: pytest.CaptureFixture[str], place: Place) -> None:
    edgefolio(capsys, "profile", place.uri, *QUICK)
    code, out, err = edgefolio(capsys, "profile", place.uri, "--json", "--threads", "2", *QUICK)
    assert (code, json.loads(out)["wasThere"], json.loads(out)["threads"]) == (0, False, 2)
    assert "taken with 1 threads" in err


def test_a_file_in_place_of_the_repository(capsys: pytest.CaptureFixture[str], place: Place) -> None:
    target = place.folder / "profile.json"
    code, out, _ = edgefolio(capsys, "profile", place.uri, "--output", target, *QUICK)
    assert code == 0
    assert str(target) in out.replace("\n", "")
    assert not place.path.exists()
    PublishedProfile.from_bytes(target.read_bytes(), location="here")


def test_an_object_store_is_written_and_a_web_server_is_only_read(
    capsys: pytest.CaptureFixture[str], place: Place, s3_uri: str
) -> None:
    Publication.open(s3_uri).publish(place.draft, place.files, history_limit=3)
    code, out, err = edgefolio(capsys, "profile", s3_uri, "--json", *QUICK)
    assert code == 0, err
    stored = Repository.open(s3_uri).storage.read(json.loads(out)["path"], maximum_bytes=1 << 20)
    assert stored is not None
    target = place.folder / "profile.json"
    with faulty_server(files_of(Path(place.uri))) as server:
        code, _, err = edgefolio(capsys, "profile", server.url, "--model", "toy", *QUICK)
        assert code == 2
        assert "--output" in err
        code, _, err = edgefolio(capsys, "profile", server.url, "--model", "toy", "--output", target, *QUICK)
        assert code == 0, err
    # Put where the place is written, it is found.
    place.path.parent.mkdir()
    place.path.write_bytes(target.read_bytes())
    manifest, digest = place.published.manifest, place.published.pointer.manifest_sha256
    found = fitting_profile(Repository.open(place.uri), manifest, this_processor(), manifest_sha256=digest)
    assert found.choice.is_own


def test_a_busy_machine_is_refused_unless_it_is_allowed(
    capsys: pytest.CaptureFixture[str], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revision, "busy_percent", lambda: 80.0)
    code, _, err = edgefolio(capsys, "profile", place.uri)
    assert code == 2
    assert "others use 80 %" in err
    assert "--allow-busy" in err
    assert not place.path.exists()
    code, out, _ = edgefolio(capsys, "profile", place.uri, *QUICK)
    assert code == 0
    assert "Busy:    yes: others used 80 % before" in out


def test_a_file_that_is_not_the_manifests_is_never_run(capsys: pytest.CaptureFixture[str], place: Place) -> None:
    (damaged,) = Path(place.uri).rglob("models/toy/102/model.onnx")
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    code, _, err = edgefolio(capsys, "profile", place.uri, *QUICK)
    assert code == 2
    assert "102/model.onnx" in err.replace("\n", "")
    assert not place.path.exists()


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("--model", "another"), "REPOSITORY"),
        (("--revision", "7"), "REPOSITORY"),
        (("--output", "."), "--output"),
        (("--verification-key", "nonsense"), "--verification-key"),
    ],
)
def test_bad_input_is_one_clear_message(
    capsys: pytest.CaptureFixture[str], place: Place, arguments: tuple[str, ...], field: str
) -> None:
    code, out, err = edgefolio(capsys, "profile", place.uri, *QUICK, *arguments)
    assert (code, out) == (2, "")
    assert f"field:  {field}" in err


def test_a_signed_revision_takes_only_a_signed_profile(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, public = new_key_pair()
    file = tmp_path / "key"
    file.write_bytes(secret)
    (tmp_path / "signed").mkdir()
    signed = Place(tmp_path / "signed").publish(SigningKey.parse(secret, field="key"))
    code, _, err = edgefolio(capsys, "profile", signed.uri, *QUICK)
    assert code == 2
    assert "field:  --sign" in err
    assert edgefolio(capsys, "profile", signed.uri, "--sign", file, *QUICK)[0] == 0
    # A writer that was stopped before it had signed: the next one does.
    signature = signed.path.with_name(signed.path.name + layout.SIGNATURE_SUFFIX)
    signature.unlink()
    code, _, err = edgefolio(capsys, "profile", signed.uri, "--sign", file, *QUICK)
    assert code == 0
    assert "not signed" in err
    assert signature.is_file()
    key = VerificationKey.parse(public.decode(), field="key")
    manifest, digest = signed.published.manifest, signed.published.pointer.manifest_sha256
    trusting = Repository.open(signed.uri, verification_key=key)
    assert fitting_profile(trusting, manifest, this_processor(), manifest_sha256=digest).published is not None
    # The Job has the key from its environment, or says what it lacks.
    signed.path.unlink()
    arguments = [signed.uri, "toy", "--revision", "1", "--manifest-digest", digest, "--samples", "20", "--rounds", "2"]
    assert profile_job.main(arguments) == 2
    report = report_of_message((tmp_path / "message").read_text())
    assert isinstance(report, FailureReport)
    assert report.field == "--sign"
    monkeypatch.setenv(KEY_VARIABLE, secret.decode())
    assert profile_job.main([*arguments, "--verification-key", key.text]) == 0


def test_the_job_says_what_it_measured_and_what_was_there(tmp_path: Path, place: Place) -> None:
    digest = place.published.pointer.manifest_sha256
    arguments = [place.uri, "toy", "--revision", "1", "--manifest-digest", digest, "--samples", "20", "--rounds", "2"]
    assert profile_job.main(arguments) == 0
    first = report_of_message((tmp_path / "message").read_text())
    assert isinstance(first, ProfiledReport)
    assert first.class_name == this_processor().class_name
    assert [variant.name for variant in first.variants] == ["small", "large"]
    PublishedProfile.from_bytes(place.path.read_bytes(), location="here", sha256=first.digest)
    assert profile_classes(Repository.open(place.uri), "toy", 1) == (first.class_name,)
    before = place.path.read_bytes()
    assert profile_job.main(arguments) == 0
    assert report_of_message((tmp_path / "message").read_text()) == first
    assert place.path.read_bytes() == before
    # A manifest that is not the one of the order is measured by nobody.
    assert profile_job.main([*arguments[:5], "0" * 64]) == 2
    assert isinstance(report_of_message((tmp_path / "message").read_text()), FailureReport)
