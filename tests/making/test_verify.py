"""``edgefolio verify`` finds what is wrong, says where, and believes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx
import pytest
from onnx import helper

from edgefolio.manifest import sha256_of
from edgefolio.repository import Repository
from edgefolio_edge.models.repository_audit import verify_repository


@pytest.fixture
def repository(made, tmp_path) -> Path:
    """A copy of the published portfolio that a test may damage."""
    shutil.copytree(made.repository, tmp_path / "repository")
    return tmp_path / "repository"


def problems(repository: Path) -> list[str]:
    found = verify_repository(Repository.open(str(repository))).all_findings
    return [f"{finding.location}: {finding.problem}" for finding in found]


def model_file(repository: Path) -> Path:
    return sorted(repository.glob("models/digits/*/model.onnx"))[0]


def rewrite_model(repository: Path, change) -> None:
    """Change a model and let every digest agree, as one who may write to the repository can."""
    path = model_file(repository)
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    rewrite_manifest(
        repository,
        lambda document: document["variants"][0].update(
            sha256=sha256_of(path.read_bytes()), sizeBytes=path.stat().st_size
        ),
    )


def rewrite_manifest(repository: Path, change) -> None:
    path = repository / "revisions" / "digits" / "1.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    pointer = repository / "revisions" / "digits" / "current.json"
    content = json.loads(pointer.read_text())
    content["manifestSha256"] = sha256_of(path.read_bytes())
    pointer.write_text(json.dumps(content))


def test_a_published_portfolio_is_sound(made, edgefolio):
    finished = edgefolio("verify", made.repository, "--json")
    assert finished.code == 0, finished.stderr
    assert finished.document["sound"]
    assert finished.document["findings"] == []
    assert [revision["current"] for revision in finished.document["revisions"]].count(True) == 1
    assert edgefolio("verify", made.repository, "--model", "digits").code == 0


def test_other_bytes_are_found(repository, edgefolio):
    path = model_file(repository)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    finished = edgefolio("verify", repository)
    assert finished.code == 2
    assert "digest" in finished.stdout
    assert str(path) in finished.stdout
    document = edgefolio("verify", repository, "--json").document
    assert not document["sound"]
    assert document["findings"][0]["location"] == str(path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda model: setattr(model, "ir_version", 10), "IR version 10"),
        (lambda model: setattr(model.opset_import[0], "version", 17), "opset 17"),
        (lambda model: setattr(model.graph.node[0], "op_type", "NoSuchOperator"), "checker refuses"),
        (
            lambda model: (
                setattr(model.graph.node[0], "domain", "com.microsoft"),
                model.opset_import.append(helper.make_opsetid("com.microsoft", 1)),
            ),
            "outside the standard one",
        ),
        (lambda model: setattr(model.graph.output[0], "name", "other"), "outputs are"),
        (
            lambda model: setattr(model.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", 4),
            "no dynamic batch axis",
        ),
        (
            lambda model: setattr(
                model.graph.initializer[0], "raw_data", bytes(len(model.graph.initializer[0].raw_data))
            ),
            "answers to the probe are wrong",
        ),
    ],
    ids=["ir", "opset", "operator", "domain", "output", "batch", "weights"],
)
def test_a_model_that_is_not_what_it_should_be_is_found(repository, change, problem):
    rewrite_model(repository, change)
    found = problems(repository)
    assert any(problem in text and "model.onnx" in text for text in found), found


def test_weights_outside_the_file_are_refused_and_not_opened(repository, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 100_000)

    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "../../../../secret"

    rewrite_model(repository, change)
    assert any("weights lie outside the file" in text for text in problems(repository))


def test_a_wrong_probe_is_found(repository):
    def change(document) -> None:
        document["variants"][0]["probe"]["outputs"][0]["values"][0] += 1.0

    rewrite_manifest(repository, change)
    assert any("answers to the probe are wrong" in text for text in problems(repository))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda document: document["variants"][0].update(file="../../x/model.onnx"), "file"),
        (lambda document: document.update(schemaVersion="edgefolio.dev/manifest/v9"), "schema version"),
        (lambda document: document.update(unknown=1), "unknown"),
    ],
    ids=["path", "version", "field"],
)
def test_a_manifest_that_breaks_its_schema_is_found(repository, change, problem):
    rewrite_manifest(repository, change)
    found = problems(repository)
    assert len(found) == 1
    assert problem in found[0]
    assert "1.json" in found[0]


def test_a_manifest_or_pointer_that_was_changed_or_lost_is_found(repository):
    manifest, pointer = (repository / "revisions" / "digits" / name for name in ("1.json", "current.json"))
    whole = manifest.read_bytes()
    manifest.write_bytes(whole + b" ")
    assert any("digest" in text for text in problems(repository))
    manifest.unlink()
    assert any("no manifest" in text for text in problems(repository))
    manifest.write_bytes(whole)
    assert problems(repository) == []
    pointer.write_text("{}")
    assert any("current.json" in text for text in problems(repository))
    pointer.unlink()
    assert any("pointer is missing" in text for text in problems(repository))


@pytest.mark.parametrize("arguments", [("/nowhere",), ("nosuch://x",), ("{empty}",), ("{made}", "--model", "other")])
def test_what_cannot_be_verified_is_the_users_error(edgefolio, made, tmp_path, arguments):
    empty = tmp_path / "empty"
    empty.mkdir()
    finished = edgefolio("verify", *(text.format(empty=empty, made=made.repository) for text in arguments))
    assert finished.code == 2
    assert finished.stderr.startswith("error: ")
    assert "remedy:" in finished.stderr
    assert "Traceback" not in finished.stderr
