"""Who reads a manifest with a split: it is listed, and never chosen, fetched or served by one server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from draft_manifests import draft_manifest, draft_profile, draft_variant
from draft_splits import SplitDraft, planned, split_draft, split_variant
from pydantic import BaseModel, ConfigDict

from edgefolio.commands.main import main
from edgefolio.contract.job_report import LARGEST_MESSAGE_BYTES, PublishedReport, report_of_message
from edgefolio.decision import profiles_from_manifest
from edgefolio.errors import UserError
from edgefolio.manifest import SCHEMA_VERSION, SPLIT_SCHEMA_VERSION, Manifest
from edgefolio.records.split_member import SplitLink
from edgefolio.repository import Publication, Repository
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.rehearsal import require_usable
from edgefolio_edge.models.synchronizer import Synchronizer
from edgefolio_edge.models.variants import by_size, variant_named, variant_of_version
from edgefolio_pruner.html_report.html import render_report


@pytest.fixture
def draft(tmp_path: Path) -> SplitDraft:
    return split_draft(tmp_path / "draft")


def changed(manifest: Manifest, **fields: object) -> Manifest:
    return Manifest.model_validate(manifest.model_dump() | fields)


def test_only_a_manifest_with_a_split_is_of_the_second_version(draft: SplitDraft) -> None:
    manifest = draft.manifest
    assert manifest.schema_version == SPLIT_SCHEMA_VERSION
    assert Manifest.from_bytes(manifest.to_bytes(), location="x") == manifest
    single = draft_manifest([draft_variant("dense", 1, b"x")], model="digits")
    written = json.loads(single.to_bytes())
    assert written["schemaVersion"] == SCHEMA_VERSION
    assert "split" not in written["variants"][0]
    for wrong in (changed_version(manifest, SCHEMA_VERSION), changed_version(single, SPLIT_SCHEMA_VERSION)):
        with pytest.raises(ValueError, match="schemaVersion must be"):
            wrong()


def changed_version(manifest: Manifest, version: str) -> object:
    return lambda: changed(manifest, schema_version=version)


def test_one_variant_at_least_is_for_one_node() -> None:
    with pytest.raises(ValueError, match="fall back"):
        draft_manifest([split_variant("two", 1, planned()[0])], model="digits", schema_version=SPLIT_SCHEMA_VERSION)


def test_a_split_is_no_candidate_and_nothing_to_load(draft: SplitDraft) -> None:
    manifest = draft.manifest
    require_usable(manifest, location="x")
    assert [variant.name for variant in manifest.splits] == ["split-two"]
    assert [profile.name for profile in profiles_from_manifest(manifest)] == ["dense"]
    split = profiles_from_manifest(manifest, with_splits=True, batch_size=4)[0].split
    assert split is not None
    assert (split.workers, split.exchanges, split.bytes_into_busiest, split.input_bytes) == (2, 1, 16, 64)
    assert len(split.shard_milliseconds) == 2
    assert all(profile.split is None for profile in profiles_from_manifest(manifest))
    assert [variant.name for variant in by_size(manifest)] == ["dense"]
    assert variant_of_version(manifest, 101) is None
    with pytest.raises(UserError, match="a split over 2 nodes") as error:
        variant_named(manifest, "split-two")
    assert error.value.remedy == "Name one of: dense."


def test_an_agent_is_complete_without_the_split_and_fetches_none_of_it(draft: SplitDraft, tmp_path: Path) -> None:
    uri = str(tmp_path / "repository")
    published = Publication.open(uri).publish(draft.manifest, draft.files, history_limit=1)
    store = ModelStore(tmp_path / "state", model="digits")
    synced = Synchronizer(lambda: Repository.open(uri), store).step()
    assert (synced.complete, synced.available, synced.refusal) == (True, ("dense",), None)
    assert store.missing_bytes(published.manifest) == 0
    assert sorted(path.name for path in store.model_directory.iterdir()) == ["102", "config.pbtxt"]
    assert not list((tmp_path / "state").rglob("*segment*"))


class _MessageOfBefore(BaseModel):
    """What an operator of the release before reads of a Job's message: rows of eight, and nothing that it knows not."""

    model_config = ConfigDict(extra="ignore")

    kind: str
    revision: int
    variants: tuple[dict[str, object], ...]

    @classmethod
    def read(cls, text: str) -> _MessageOfBefore:
        row = ("name", "rank", "accuracy", "mean", "p95", "load", "peak", "steady")
        document = json.loads(text)
        rows = [dict(zip(row, values, strict=True)) for values in document["variants"]]
        return cls.model_validate({**document, "variants": rows})


def test_the_message_of_a_job_lists_splits_beside_the_variants(draft: SplitDraft) -> None:
    report = PublishedReport.of(draft.manifest, digest="0" * 64)
    assert [variant.name for variant in report.variants] == ["dense"]
    (split,) = report.splits
    assert (split.name, split.workers, split.received_bytes) == ("split-two", 2, 4)
    assert report_of_message(report.to_message()) == report
    before = _MessageOfBefore.read(report.to_message())
    assert [variant["name"] for variant in before.variants] == ["dense"]


def test_the_message_of_a_job_of_before_is_read() -> None:
    single = draft_manifest([draft_variant("dense", 1, b"x")], model="digits")
    message = PublishedReport.of(single, digest="0" * 64).to_message()
    assert "splits" not in message
    read = report_of_message(message)
    assert isinstance(read, PublishedReport)
    assert read.splits == ()


def test_sixteen_variants_of_the_longest_names_fit_a_message() -> None:
    plan = planned()[0]
    huge = draft_profile(memory=2**52)
    variants = [split_variant(f"split-{'x' * 30}{number}", number, plan) for number in (1, 2)]
    variants += [
        draft_variant(f"{'y' * 61}{number}", number, b"x", percent=88.123456, profiles=(huge,))
        for number in range(3, 17)
    ]
    manifest = draft_manifest(variants, model="digits", schema_version=SPLIT_SCHEMA_VERSION)
    message = PublishedReport.of(manifest, digest="0" * 64).to_message()
    assert len(message.encode()) <= LARGEST_MESSAGE_BYTES


def test_predictions_follow_the_link_and_the_node(draft: SplitDraft) -> None:
    split = draft.manifest.splits[0].split
    assert split is not None
    # Two round trips of 0.5 ms, and 20 bytes at 1 Gbit/s; the rest computes.
    network = 1.0 + 8000 * 20 / 1e9
    assert split.milliseconds_over(split.link) == pytest.approx(2.0)
    slow = SplitLink(bits_per_second=1e3, round_trip_milliseconds=5)
    assert split.milliseconds_over(slow, cpu_factor=3) == pytest.approx(3 * (2.0 - network) + 10 + 160)


PORTFOLIO = """
apiVersion: edgefolio.dev/v1alpha1
kind: ModelPortfolio
metadata: {name: digits}
spec:
  repository: {uri: %s}
  serving: {modelName: digits}
"""


def test_explain_lists_splits_over_a_link(
    draft: SplitDraft, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = str(tmp_path / "repository")
    Publication.open(uri).publish(draft.manifest, draft.files, history_limit=1)
    file = tmp_path / "portfolio.yaml"
    file.write_text(PORTFOLIO % uri)

    def explained(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["explain", "-f", str(file), *arguments])
        out, err = capsys.readouterr()
        return int(str(ended.value.code)), out, err

    code, out, _ = explained("--json", "--link", "1K,5ms", "--cpu-factor", "3")
    document = json.loads(out)
    assert (code, document["chosen"]) == (0, "dense")
    assert [variant["name"] for variant in document["variants"]] == ["dense"]
    (split,) = document["splits"]
    assert split["predictedMilliseconds"] == pytest.approx(172.99952)
    assert (split["chosen"], "no set of workers is stated" in split["why"]) == (False, True)
    assert (split["barred"], split["fallback"]["variant"]) == ("PeersNotReady", "dense")
    assert "split-two: not split: no set of workers is stated (--worker-set)." in explained()[1]
    code, _, err = explained("--link", "fast")
    assert (code, "--link" in err) == (2, True)
    # With nodes to serve it the core judges it: 80 % here, less than the dense model's, which fits as well.
    (split,) = json.loads(explained("--json", "--worker-set", "2,rate=10", "--link", "1G,0.1ms")[1])["splits"]
    assert (split["barred"], split["chosen"], split["networkMilliseconds"]) == (None, False, pytest.approx(0.20016))
    assert "not split: fits, but dense is more accurate." in explained("--worker-set", "2,rate=10")[1]
    (split,) = json.loads(explained("--json", "--worker-set", "3")[1])["splits"]
    assert "the set has 3 of 2 workers" in split["why"]
    observed = tmp_path / "set.json"
    observed.write_text(
        json.dumps(
            {
                "variant": "split-two",
                "rank": 0,
                "workers": 2,
                "isReady": False,
                "ageSeconds": 0.2,
                "reason": "peer 1 is silent",
            }
        )
    )
    assert "its workers are not linked (peer 1 is silent)" in explained("--worker-set", str(observed))[1]
    assert explained("--active", "split-two", "--worker-set", "2")[0] == 0
    for wrong in ("1", "2,rate=-3", "2,speed=3", "2,rate=1,rate=2", "2,factor=0", str(tmp_path / "none.json")):
        code, _, err = explained("--worker-set", wrong)
        assert (code, "--worker-set" in err) == (2, True), wrong
    code, _, err = explained("--active", "split-two")
    assert (code, "it is a split" in err) == (2, True)


def test_the_report_shows_the_split_apart(draft: SplitDraft) -> None:
    page = render_report(draft.manifest)
    assert "Over several nodes" in page
    assert "layer: 0.0 KiB of 0.0 KiB a sample" in page
    assert "bytes into the busiest worker, a sample" in page
    (variant,) = draft.manifest.splits
    assert variant.split is not None
    unmeasured = variant.model_copy(update={"split": variant.split.model_copy(update={"plans": ()})})
    without = draft.manifest.model_copy(update={"variants": (unmeasured, *draft.manifest.single_node)})
    assert "bytes into the busiest worker, a sample" not in render_report(without)
    single = draft_manifest([draft_variant("dense", 1, b"x")], model="digits")
    assert "Over several nodes" not in render_report(single)
