"""The way from a specification to a published portfolio, through the command line."""

from __future__ import annotations

import json
import shutil

import pytest
import safetensors.torch
import torch

from edgefolio.manifest import sha256_of
from edgefolio.repository import Repository
from edgefolio_pruner.architectures import cnn


def candidates_of(work) -> dict[str, dict]:
    """Every candidate that lies in a work directory, by name."""
    found = [json.loads(path.read_text())["value"] for path in work.glob("candidate-*.json")]
    return {value["name"]: value for value in found}


def test_every_candidate_is_proven_and_published_or_rejected(made):
    document = made.finished.document
    pointer, manifest = Repository.open(str(made.repository)).current_manifest("digits")
    assert (document["revision"], document["manifestSha256"]) == (1, pointer.manifest_sha256)
    names = [variant.name for variant in manifest.variants] + [rejected.name for rejected in manifest.rejected]
    assert sorted(names) == ["dense", "oneshot-40", "sparse-1"]
    assert all(rejected.reason for rejected in manifest.rejected)
    assert sorted(candidates_of(made.work)) == sorted(names)
    for candidate in candidates_of(made.work).values():
        assert candidate["parity"]["samples"] >= 256
        assert candidate["parity"]["top1AgreementPercent"] == 100
        if candidate["name"] == "dense":
            assert candidate["exactness"] is None
        else:
            assert candidate["exactness"]["float64RelativeDifference"] <= 1e-9
            assert any(layer["after"] < layer["before"] for layer in candidate["layers"])
            assert candidate["macs"] < candidates_of(made.work)["dense"]["macs"]
    for variant in manifest.variants:
        assert variant.test_accuracy.samples == manifest.data.test_samples
        assert [latency.batch_size for latency in variant.profiles[0].latencies] == [1, 8]
    assert manifest.preprocessing.scale == pytest.approx(1 / 16)
    assert manifest.signature.inputs[0].shape == (1, 8, 8)
    assert manifest.signature.outputs[0].shape == (10,)


def test_made_again_it_is_the_same_revision_and_nothing_is_computed(made, edgefolio):
    times = {path: path.stat().st_mtime_ns for path in made.work.rglob("*") if path.is_file()}
    again = edgefolio("make", "-f", "portfolio.yaml", "--work-dir", "work", "--json", cwd=made.folder)
    assert again.code == 0, again.stderr
    assert again.document["alreadyPublished"]
    assert again.document["manifestSha256"] == made.finished.document["manifestSha256"]
    changed = {path.name for path in times if path.exists() and path.stat().st_mtime_ns != times[path]}
    assert changed <= {"report.html", "lock"}


def test_changed_objectives_make_no_new_revision(made, edgefolio, portfolio_file):
    path = portfolio_file(lambda document: document["spec"].update(objectives={"latencyP95Milliseconds": 7}))
    again = edgefolio("make", "-f", path, "--work-dir", "work", "--json", cwd=made.folder)
    assert (again.code, again.document["revision"]) == (0, made.finished.document["revision"])


def test_the_table_the_report_and_the_next_step(made, edgefolio, portfolio_file):
    path = portfolio_file(lambda document: document["spec"].update(job={"suspend": True}))
    again = edgefolio("make", "-f", path, "--work-dir", "work", "--report", made.folder / "r.html", cwd=made.folder)
    assert again.code == 0, again.stderr
    assert "spec.job" in again.stderr
    for part in ("dense", "p95", "memory", "Next:", "edgefolio run -f", str(made.folder / "r.html")):
        assert part in again.stdout
    html = (made.folder / "r.html").read_text()
    assert html.count("<svg") == 1
    for outside in ("http://", "https://", "src=", "<script", "@import"):
        assert outside not in html.replace("http://www.w3.org", "").replace("https://www.w3.org", "")


def with_given_weights(made, folder):
    """The dense net of ``made``, and the change of its portfolio that takes these weights and trains nothing."""
    weights = next(made.work.glob("train-*/levels/dense.safetensors"))
    net = cnn(in_channels=1, width=16)
    net.load_state_dict(safetensors.torch.load_file(weights))
    safetensors.torch.save_file(net.state_dict(), folder / "weights.safetensors")

    def change(document):
        document["spec"]["source"]["weightsURI"] = str(folder / "weights.safetensors")
        del document["spec"]["methods"]["sparseTraining"]

    return net, change


def test_given_weights_alone_suffice_for_the_one_shot_route(made, edgefolio, portfolio_file, tmp_path):
    net, change = with_given_weights(made, tmp_path)
    path = portfolio_file(change)
    options = ("--work-dir", tmp_path / "work", "--repository", tmp_path / "repository", "--json")
    finished = edgefolio("make", "-f", path, *options)
    assert finished.code == 0, finished.stderr
    _, manifest = Repository.open(str(tmp_path / "repository")).current_manifest("digits")
    assert manifest.source_sha256 is not None
    found = candidates_of(tmp_path / "work")
    assert sorted(found) == ["dense", "oneshot-40"]
    assert found["dense"]["method"] == "given weights"
    exported = torch.tensor(found["dense"]["probe"]["outputs"][0]["values"]).reshape(-1, 10)
    inputs = torch.tensor(found["dense"]["probe"]["inputs"][0]["values"]).reshape(-1, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(net.eval()(inputs), exported, atol=1e-4, rtol=1e-4)


def test_given_weights_with_their_normalization(made, edgefolio, portfolio_file, tmp_path):
    _, recorded = Repository.open(str(made.repository)).current_manifest("digits")
    _, change = with_given_weights(made, tmp_path)
    options = ("--work-dir", tmp_path / "work", "--repository", tmp_path / "repository", "--json")
    expected = candidates_of(made.work)["dense"]["validationAccuracy"]["percent"]
    own = (str(recorded.preprocessing.mean[0]), str(recorded.preprocessing.std[0]))

    def normalized(mean, deviation):
        def changed(document):
            change(document)
            document["spec"]["data"]["normalization"] = {"mean": [mean], "standardDeviation": [deviation]}

        return edgefolio("make", "-f", portfolio_file(changed), *options)

    finished = normalized(*own)
    assert finished.code == 0, finished.stderr
    _, manifest = Repository.open(str(tmp_path / "repository")).current_manifest("digits")
    assert (manifest.preprocessing.mean, manifest.preprocessing.std) == ((float(own[0]),), (float(own[1]),))
    assert manifest.specification["data"]["normalization"]["mean"] == [own[0]]
    kept = json.loads(next((tmp_path / "work").glob("candidate-dense-*.json")).read_text())["value"]
    assert kept["validationAccuracy"]["percent"] == expected
    # The weights were trained on the data that they are tested on, as far as anybody can know.
    assert any("data.testURI" in note for note in finished.document["notes"])
    # As the weights of another training would be misread: found before anything is pruned, and nothing is published.
    finished = normalized("9", "0.1")
    assert finished.code == 2
    assert "spec.data.normalization" in finished.stderr
    assert "with the training data's own" in finished.stderr
    assert Repository.open(str(tmp_path / "repository")).current("digits").revision == 1


def test_a_floor_that_nobody_meets_publishes_the_dense_model_alone(made, edgefolio, portfolio_file, tmp_path):
    path = portfolio_file(lambda document: document["spec"].update(selection={"minAccuracyPercent": "100.0"}))
    shutil.copytree(made.work, tmp_path / "work")
    options = ("--work-dir", tmp_path / "work", "--repository", tmp_path / "repository")
    finished = edgefolio("make", "-f", path, *options, "--json")
    assert finished.code == 3, finished.stderr
    assert not finished.document["accuracyFloorMet"]
    assert [variant["name"] for variant in finished.document["variants"]] == ["dense"]
    finished = edgefolio("make", "-f", path, *options)
    assert finished.code == 3
    assert "No candidate meets the accuracy floor" in finished.stdout


def test_a_result_that_was_damaged_is_made_again_with_the_same_bytes(made, edgefolio, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(made.work, work)
    expected = {name: value["sha256"] for name, value in candidates_of(work).items()}
    for path in work.glob("candidate-*/model.onnx"):
        path.write_bytes(path.read_bytes()[:-1])
    for path in work.glob("one-shot-*/*.safetensors"):
        path.unlink()
    for path in work.glob("candidate-dense-*.json"):
        path.write_text("{")
    options = ("--work-dir", work, "--repository", tmp_path / "repository", "--json")
    finished = edgefolio("make", "-f", made.folder / "portfolio.yaml", *options)
    assert finished.code == 0, finished.stderr
    assert {name: value["sha256"] for name, value in candidates_of(work).items()} == expected
    for name, value in candidates_of(work).items():
        files = list(work.glob(f"candidate-{name}-*/model.onnx"))
        assert [sha256_of(path.read_bytes()) for path in files] == [value["sha256"]]
