"""``edgefolio make`` with ``methods.split``: members are published and verified, or left out with their figures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgefolio.manifest import SCHEMA_VERSION, SPLIT_SCHEMA_VERSION, Manifest
from edgefolio.repository import Repository
from edgefolio_edge.models.repository_audit import verify_repository


class Folder:
    """A copy of a made portfolio's work, whose models are trained already, and an entry of ``methods.split``."""

    def __init__(self, edgefolio: Any, made: Any, folder: Path, **entry: Any) -> None:
        self._edgefolio, self.folder, self._portfolio = edgefolio, folder, made.folder / "portfolio.yaml"
        folder.mkdir()
        shutil.copytree(made.work, folder / "work")
        self.ask(**entry)

    def ask(self, **entry: Any) -> None:
        document = yaml.safe_load(self._portfolio.read_text())
        # One plan, and no worker that adjusts weights: quick.
        document["spec"]["methods"]["split"] = [{"name": "two", "layout": "Rows"} | entry]
        (self.folder / "portfolio.yaml").write_text(yaml.safe_dump(document))

    def make(self, **options: Any) -> Any:
        return self._edgefolio(
            "make", "-f", "portfolio.yaml", "--work-dir", "work", "--json", cwd=self.folder, **options
        )

    def take_as_measured(self, *, single: float, worker: float) -> None:
        """Replace the kept times by others: what a slower or a faster machine would have kept."""
        (path,) = (self.folder / "work").glob("split-times-*.json")
        document = json.loads(path.read_bytes())
        times = document["value"]
        times["single"] = dict.fromkeys(times["single"], single)
        times["workers"] = {
            name: {label: [worker] * len(found) for label, found in plans.items()}
            for name, plans in times["workers"].items()
        }
        path.write_text(json.dumps(document))

    @property
    def manifest(self) -> Manifest:
        return Repository.open(str(self.folder / "portfolios")).current_manifest("digits")[1]

    def plan_files(self) -> dict[str, bytes]:
        (folder,) = [path for path in (self.folder / "work").glob("split-two-plan-1-*") if path.is_dir()]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def slow_link(edgefolio: Any, made: Any, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A making whose split cannot pay: a round trip takes longer than any of these models."""
    folder = Folder(
        edgefolio, made, tmp_path_factory.mktemp("split") / "slow", link={"roundTripMilliseconds": "100000"}
    )
    finished = folder.make()
    assert finished.code == 0, finished.stderr
    return folder


def test_a_split_that_does_not_pay_is_left_out_with_its_figures(slow_link: Folder, made: Any) -> None:
    manifest = slow_link.manifest
    assert (manifest.schema_version, manifest.splits) == (SCHEMA_VERSION, ())
    (rejected,) = [entry for entry in manifest.rejected if entry.name == "split-two"]
    assert "it does not pay over 1Gbit/s and 100000 ms: the nearest plan, rows, is predicted to take" in rejected.reason
    assert rejected.validation_accuracy_percent is not None
    # The rest of the portfolio is published as if nobody had asked for a split.
    without = Repository.open(str(made.repository)).current_manifest("digits")[1]
    assert {variant.sha256 for variant in manifest.variants} == {variant.sha256 for variant in without.variants}


def test_one_that_pays_is_a_member_and_verified(edgefolio: Any, made: Any, slow_link: Folder, tmp_path: Path) -> None:
    folder = tmp_path / "pays"
    shutil.copytree(slow_link.folder, folder)
    fast = Folder.__new__(Folder)
    fast._edgefolio, fast.folder = edgefolio, folder
    fast.take_as_measured(single=400_000.0, worker=1.0)
    finished = fast.make()
    assert finished.code == 0, finished.stderr
    manifest = fast.manifest
    assert manifest.schema_version == SPLIT_SCHEMA_VERSION
    (variant,) = manifest.splits
    split = variant.split
    assert split is not None
    dense = manifest.variant("dense")
    assert (variant.name, variant.parent, split.workers, split.layout) == ("split-two", "dense", 2, "Rows")
    # Rows lose nothing, and leave every weight with every worker.
    assert variant.validation_accuracy.percent == pytest.approx(dense.validation_accuracy.percent, abs=0.3)
    assert variant.parity.max_absolute_difference < 1e-4 * variant.parity.max_absolute_logit
    assert split.predicted_milliseconds == pytest.approx(1 + 100_000 * (split.synchronisations + 1), abs=1)
    assert split.own_milliseconds == 2.0
    assert len({profile.environment for shard in split.shards for profile in shard.profiles}) == 1
    slowest = max(shard.profiles[0].latencies[-1].mean_milliseconds for shard in split.shards)
    assert variant.profiles[0].latencies[-1].mean_milliseconds == slowest
    assert "split-two" not in {entry.name for entry in manifest.rejected}
    # It pushes none of the others out.
    assert {entry.name for entry in manifest.single_node} == {entry.name for entry in slow_link.manifest.variants}
    (revision,) = [
        found for found in verify_repository(Repository.open(str(folder / "portfolios"))).revisions if found.is_current
    ]
    assert (revision.findings, "split-two" in revision.variants) == ((), True)
    shown = next(entry for entry in finished.document["variants"] if entry["name"] == "split-two")
    assert shown["split"]["workers"] == 2
    # Once more: nothing is made or published again.
    again = fast.make()
    assert again.document["alreadyPublished"]


def test_what_a_killed_making_leaves_is_made_again_to_the_same_bytes(slow_link: Folder) -> None:
    before = slow_link.plan_files()
    work = slow_link.folder / "work"
    # The record comes last: without it nothing of the folder counts, and what is torn or missing is written again.
    (record,) = work.glob("split-two-plan-1-*.json")
    record.unlink()
    (folder,) = work.glob("split-two-plan-1-*")
    (folder / "plan.json").unlink()
    (folder / "shard-1" / "segment-0.onnx").write_bytes(before["shard-1/segment-0.onnx"][:-7])
    slow_link.make(kill_after=1.5)
    assert slow_link.make().code == 0
    assert slow_link.plan_files() == before
    # Nor does a record make a torn file whole.
    (folder / "shard-0" / "segment-0.onnx").write_bytes(b"torn")
    assert slow_link.make().code == 0
    assert slow_link.plan_files() == before


def test_more_workers_than_a_layer_has_channels_names_the_entry(edgefolio: Any, portfolio_file: Any) -> None:
    def narrow(document: dict[str, Any]) -> None:
        document["spec"]["source"]["architecture"]["options"]["width"] = 4
        document["spec"]["methods"]["split"] = [{"name": "two"}, {"name": "five", "workers": 5}]

    found = edgefolio("make", "-f", portfolio_file(narrow))
    assert found.code == 2
    assert "spec.methods.split[1].workers" in found.stderr
    assert "Give at most 4 workers" in found.stderr


def test_the_command_split_reads_the_entries_of_the_file(slow_link: Folder, edgefolio: Any) -> None:
    found = edgefolio("split", "-f", "portfolio.yaml", "--work-dir", "work", "--json", cwd=slow_link.folder)
    assert found.code == 3, found.stderr
    (entry,) = found.document["splits"]
    assert (entry["name"], [plan["layout"] for plan in entry["plans"]]) == ("two", ["Rows"])
    assert entry["link"]["roundTripMilliseconds"] == 100_000


@pytest.fixture(scope="module")
def on_bytes(edgefolio: Any, made: Any, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A making of quantized shards beside quantized models of one node, over a link that costs nothing."""
    link = {"bandwidth": "999999G", "roundTripMilliseconds": "0"}
    folder = Folder(edgefolio, made, tmp_path_factory.mktemp("int8") / "on-bytes", precision="Int8", link=link)
    document = yaml.safe_load((folder.folder / "portfolio.yaml").read_text())
    quantization = {"precision": "Int8", "calibrationSamples": 64, "maxAccuracyLossPoints": "5"}
    document["spec"]["methods"]["quantization"] = quantization
    (folder.folder / "portfolio.yaml").write_text(yaml.safe_dump(document))
    finished = folder.make()
    assert finished.code == 0, finished.stderr
    return folder


def test_a_quantized_split_says_what_it_lost_and_is_verified(on_bytes: Folder) -> None:
    before = on_bytes.plan_files()
    on_bytes.take_as_measured(single=100.0, worker=1.0)
    assert on_bytes.make().code == 0
    (variant,) = on_bytes.manifest.splits
    said = variant.quantization
    assert said is not None
    assert (variant.precision, said.float_parent, said.calibration_samples) == ("Int8", "split-two-float32", 64)
    assert said.int8_layers > 0
    assert said.accuracy_loss_points <= said.max_accuracy_loss_points == 5
    # How far it is from its float form; from the dense model the certificate says.
    assert 0 < variant.parity.max_absolute_difference < 0.5 * variant.parity.max_absolute_logit
    assert variant.parity.top1_agreement_percent > 90
    assert variant.split is not None
    assert variant.split.certificate.relative_error > 0
    assert variant.method.endswith(", int8")
    (revision,) = [
        found
        for found in verify_repository(Repository.open(str(on_bytes.folder / "portfolios"))).revisions
        if found.is_current
    ]
    assert (revision.findings, "split-two" in revision.variants) == ((), True)
    # What is made again is the same.
    (record,) = (on_bytes.folder / "work").glob("split-two-plan-1-*.json")
    record.unlink()
    assert on_bytes.make().code == 0
    assert on_bytes.plan_files() == before


def test_a_quantized_split_is_compared_with_quantized_models_of_one_node(on_bytes: Folder) -> None:
    found = on_bytes._edgefolio("split", "-f", "portfolio.yaml", "--work-dir", "work", "--json", cwd=on_bytes.folder)
    assert found.code in (0, 3), found.stderr
    (entry,) = found.document["splits"]
    assert entry["precision"] == "Int8"
    names = [single["name"] for single in entry["singleNode"]]
    assert names[0] == "dense"
    assert "dense-int8" in names
    for plan in entry["plans"]:
        rivals = [
            single["p50Milliseconds"]
            for single in entry["singleNode"]
            if single["validationAccuracyPercent"] >= plan["validationAccuracyPercent"]
        ]
        if rivals:
            assert plan["pays"] == (plan["accurateEnough"] and plan["predictedMilliseconds"] < min(rivals))


def test_without_quantized_models_of_one_node_there_is_no_quantized_split(slow_link: Folder, edgefolio: Any) -> None:
    options = ("-f", "portfolio.yaml", "--work-dir", "work", "--precision", "Int8")
    found = edgefolio("split", *options, cwd=slow_link.folder)
    assert found.code == 2
    assert "--precision" in found.stderr
    assert "Write methods.quantization: {precision: Int8}" in found.stderr
