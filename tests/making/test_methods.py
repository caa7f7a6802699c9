"""The seam for methods: a third one is one class, and the two that are there keep their names, keys and pieces."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Self

import pytest
import safetensors.torch
import torch

from edgefolio.contract.work_pieces import pieces_of
from edgefolio.files import write_durably
from edgefolio.repository import Repository
from edgefolio.specification import DataSpecification, ModelPortfolio
from edgefolio.specification.loading import load_portfolio
from edgefolio_pruner.architectures import cnn
from edgefolio_pruner.data import load_data
from edgefolio_pruner.html_report import write_report
from edgefolio_pruner.inputs import load_source
from edgefolio_pruner.methods import METHODS, CandidateWeights, Method, Workbench, asked_for
from edgefolio_pruner.pipeline import make_portfolio
from edgefolio_pruner.progress import no_progress
from edgefolio_pruner.stages.partial_run import make_piece
from edgefolio_pruner.training import state_digest


class HalvingMethod(Method):
    """A whole method: zero the filters with the smallest norms of the first or of the second convolution."""

    stage = "halving"
    products = "halved models"
    runs = 0

    @classmethod
    def asked_for(cls, portfolio: ModelPortfolio) -> Self | None:
        return cls() if portfolio.spec.methods.one_shot is not None else None

    def pieces(self) -> tuple[str, ...]:
        return ("halved-0", "halved-3")

    def make(
        self, bench: Workbench, *, dense: CandidateWeights | None, pieces: Collection[str]
    ) -> tuple[CandidateWeights, ...]:
        assert dense is not None
        return tuple(self._halved(bench, dense, piece) for piece in self.pieces() if piece in pieces)

    def _halved(self, bench: Workbench, dense: CandidateWeights, piece: str) -> CandidateWeights:
        layer = int(piece.removeprefix("halved-"))
        path = bench.work.folder(piece, {"dense": dense.digest}) / "weights.safetensors"
        if not path.is_file():
            type(self).runs += 1
            state = dense.load()
            norms = state[f"{layer}.weight"].flatten(1).norm(dim=1)
            least = norms.argsort()[: len(norms) // 2]
            for name in (f"{layer}.weight", f"{layer + 1}.weight", f"{layer + 1}.bias"):
                state[name][least] = 0
            write_durably(path, safetensors.torch.save(state), field="--work-dir")
        digest = state_digest(safetensors.torch.load_file(path))
        return CandidateWeights(
            name=piece,
            parent=dense.name,
            method="halving by norm",
            path=path,
            digest=digest,
            settings={"layer": layer},
            seconds=None,
        )


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def given_weights(document, folder: Path) -> None:
    torch.manual_seed(0)
    net = cnn(in_channels=1, width=16).train()
    data = load_data(DataSpecification(training_uri="builtin:digits"), seed=0).train
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    # Weights that know nothing would be refused.
    for start in range(0, 1200, 64):
        loss = torch.nn.functional.cross_entropy(
            net(torch.from_numpy(data.images[start : start + 64])), torch.from_numpy(data.labels[start : start + 64])
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    safetensors.torch.save_file(net.state_dict(), folder / "weights.safetensors")
    document["spec"]["source"]["weightsURI"] = str(folder / "weights.safetensors")
    del document["spec"]["methods"]["sparseTraining"]
    document["spec"]["repository"]["uri"] = str(folder / "repository")
    document["spec"]["selection"] = {
        "accuracyEpsilonPoints": "0",
        "latencyEpsilonPercent": "0",
        "memoryEpsilonPercent": "0",
    }


def test_a_third_method_is_made_proven_published_and_reported_by_one_class(portfolio_file, tmp_path):
    portfolio = load_portfolio(portfolio_file(lambda document: given_weights(document, tmp_path)))
    stages: dict[str, str] = {}

    def progress(*, stage: str, fraction: float, message: str) -> None:
        stages[stage] = message

    known = (*METHODS, HalvingMethod)
    HalvingMethod.runs = 0
    # One piece in a run of its own, as in a pod; the whole pruning run finds it done.
    assert make_piece(
        portfolio, "halved-3", work_directory=tmp_path / "work", threads=1, progress=no_progress, known_methods=known
    ) == ("halved-3",)
    result = make_portfolio(
        portfolio, work_directory=tmp_path / "work", threads=1, progress=progress, known_methods=known
    )
    assert HalvingMethod.runs == 2
    assert list(stages) == [
        "data",
        "classes",
        "note",
        "one-shot",
        "halving",
        "candidates",
        "profile",
        "test",
        "publish",
    ]
    assert stages["halving"] == "2 halved models"
    manifest = result.manifest
    names = [variant.name for variant in manifest.variants] + [rejected.name for rejected in manifest.rejected]
    assert sorted(names) == ["dense", "halved-0", "halved-3", "oneshot-40"]
    records = [json.loads(path.read_text())["value"] for path in (tmp_path / "work").glob("candidate-halved-*.json")]
    for record in records:
        assert (record["method"], record["parent"]) == ("halving by norm", "dense")
        assert record["exactness"]["float64RelativeDifference"] <= 1e-9
        assert any(layer["after"] == layer["before"] // 2 for layer in record["layers"])
    published = {variant.name: variant for variant in manifest.variants}
    halved = next(variant for name, variant in published.items() if name.startswith("halved"))
    assert halved.settings["layer"] in (0, 3)
    assert Repository.open(str(tmp_path / "repository")).current_manifest("digits")[1] == manifest
    assert "halving by norm" in write_report(manifest, tmp_path / "report.html").read_text()


def test_the_pruner_makes_the_pieces_that_the_operator_counts(portfolio_file):
    for methods in (
        {"sparseTraining": {}},
        {"oneShot": {"macsPercent": [60, 25, 60]}, "sparseTraining": {"levels": 2}},
        {"oneShot": {}, "sparseTraining": {}},
    ):
        portfolio = load_portfolio(
            portfolio_file(lambda document, given=methods: document["spec"].update(methods=given))
        )
        pieces = [piece for method in asked_for(portfolio) for piece in method.pieces()]
        assert tuple(pieces) == pieces_of(portfolio.spec.methods)


def test_results_lie_where_earlier_versions_left_them(made):
    """The names and keys of the first version, written out."""

    def short(inputs: dict[str, object]) -> str:
        text = json.dumps({"format": 1, "inputs": inputs}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    portfolio = load_portfolio(made.folder / "portfolio.yaml")
    source = load_source(portfolio, progress=no_progress).record
    assert set(source) == {"architecture", "seed", "weights", "data"}
    specification = portfolio.spec.methods.sparse_training
    assert specification is not None
    train = short({**source, "specification": specification.model_dump(mode="json"), "threads": 1})
    levels = made.work / f"train-{train}" / "levels"
    assert {"dense.safetensors", "sparse-1.safetensors"} <= {path.name for path in levels.iterdir()}
    dense = state_digest(safetensors.torch.load_file(levels / "dense.safetensors"))
    one_shot = {
        **source,
        "dense": dense,
        "macsPercent": 40,
        "calibrationSamples": 256,
        "threads": 1,
        "torch": torch.__version__,
    }
    assert (made.work / f"one-shot-40-{short(one_shot)}" / "oneshot-40.safetensors").is_file()
    value = json.loads((made.work / f"one-shot-40-{short(one_shot)}.json").read_text())["value"]
    assert set(value) == {"macsPercent", "digest", "macsPercentReached", "calibrationSamples", "seconds", "notes"}
    assert (made.work / f"prunable-groups-{short(source)}.json").is_file()
    for name, method in (("dense", "dense training"), ("sparse-1", "sparse training (Group)")):
        (path,) = made.work.glob(f"candidate-{name}-*.json")
        inputs = json.loads(path.read_text())["inputs"]
        # Made again where it lacks what later versions measure: without the hours of training.
        known = {"state", "name", "method", "settings", "edgefolio", "torch", "onnxruntime", "record"}
        assert set(inputs) == {*source, *known}
        assert (inputs["method"], path.name) == (method, f"candidate-{name}-{short(inputs)}.json")
