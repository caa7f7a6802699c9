"""``edgefolio explain`` and ``edgefolio replay``, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from draft_manifests import draft_latency, draft_manifest, draft_profile, draft_variant
from scenarios import TRACES
from simulator import PROFILES

from edgefolio.commands.main import main
from edgefolio.decision import profiles_from_manifest
from edgefolio.decision.explain import explain_choice
from edgefolio.decision.types import Objectives, VariantProfile
from edgefolio.manifest import Manifest, Variant
from edgefolio.repository import Publication
from edgefolio.specification import Switching

PORTFOLIO = """
apiVersion: edgefolio.dev/v1alpha1
kind: ModelPortfolio
metadata: {name: toy}
spec:
  repository: {uri: %s}
  serving: {modelName: toy}
  objectives: {latencyP95Milliseconds: 30, minAccuracyPercent: "87"}
"""


def variant_of(profile: VariantProfile, *, content: bytes, threads: tuple[int, ...] = (1,)) -> Variant:
    return draft_variant(
        profile.name,
        profile.rank,
        content,
        percent=profile.accuracy_percent,
        profiles=tuple(
            draft_profile(
                *(
                    draft_latency(
                        batch=batch,
                        mean=profile.mean_milliseconds * batch / 8 / count,
                        p95=profile.p95_milliseconds * batch / 8 / count,
                    )
                    for batch in (1, 8)
                ),
                threads=count,
                memory=profile.memory_steady_bytes,
                memory_peak=profile.memory_peak_bytes,
            )
            for count in threads
        ),
    )


def manifest_of(threads: tuple[int, ...] = (1,)) -> Manifest:
    variants = [variant_of(profile, content=profile.name.encode(), threads=threads) for profile in PROFILES]
    return draft_manifest(variants, model="toy", request_batch_size=8)


@pytest.fixture
def portfolio(tmp_path: Path) -> Path:
    repository = tmp_path / "repository"
    files = {}
    for profile in PROFILES:
        files[profile.name] = tmp_path / f"{profile.name}.onnx"
        files[profile.name].write_bytes(profile.name.encode())
    Publication.open(str(repository)).publish(manifest_of(), files, history_limit=3)
    path = tmp_path / "portfolio.yaml"
    path.write_text(PORTFOLIO % repository)
    return path


def edgefolio(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, captured.out, captured.err


def explained(capsys: pytest.CaptureFixture[str], portfolio: Path, *arguments: object) -> dict[str, object]:
    code, out, err = edgefolio(capsys, "explain", "-f", portfolio, "--json", *arguments)
    assert (code, err) == (0, "")
    return json.loads(out)


def test_explain_names_the_choice_and_why_not_the_others(capsys: pytest.CaptureFixture[str], portfolio: Path) -> None:
    document = explained(capsys, portfolio, "--cpu-factor", 2.5, "--rate", 40, "--memory", "64Mi")
    assert document["chosen"] == "small"
    assert document["objectivesMet"] is True
    why = {entry["name"]: entry["why"] for entry in document["variants"]}
    assert list(why) == ["large", "mid", "small", "tiny"]
    assert why["small"] == "the most accurate that fits"
    assert "cannot keep up" in why["large"] or "busy 100 %" in why["large"]
    assert "ms is above 28.5 ms (30.0 ms less 5 %)" in why["mid"]
    assert why["tiny"] == "accuracy 85.00 % is below 87 %"


def test_explain_without_conditions_is_the_idle_node(capsys: pytest.CaptureFixture[str], portfolio: Path) -> None:
    document = explained(capsys, portfolio)
    assert document["chosen"] == "large"
    assert {entry["name"]: entry["p95Milliseconds"] for entry in document["variants"]}["large"] == pytest.approx(12)


def test_explain_counts_the_active_variants_memory(capsys: pytest.CaptureFixture[str], portfolio: Path) -> None:
    assert explained(capsys, portfolio, "--memory", "64Mi")["chosen"] == "large"
    document = explained(capsys, portfolio, "--memory", "64Mi", "--active", "small")
    assert document["chosen"] == "small"
    large = document["variants"][0]
    assert large["fitsMemory"] is False
    assert large["why"] == "needs 60.0 MiB beside what is loaded, 36.8 MiB are left"


def test_explain_says_when_nothing_meets_the_objectives(capsys: pytest.CaptureFixture[str], portfolio: Path) -> None:
    code, out, _ = edgefolio(capsys, "explain", "-f", portfolio, "--cpu-factor", 50)
    assert code == 0
    assert "Chosen: small, though no variant meets all objectives (ObjectivesNotMet)." in out
    code, out, _ = edgefolio(capsys, "explain", "-f", portfolio, "--memory", "1Mi")
    assert code == 0
    assert "Chosen: none." in out


def test_explain_prints_a_table(capsys: pytest.CaptureFixture[str], portfolio: Path) -> None:
    code, out, _ = edgefolio(capsys, "explain", "-f", portfolio, "--cpu-factor", 2, "--rate", 20, "--active", "mid")
    assert code == 0
    assert "toy, revision 1: compute 2x slower than profiled, 20 requests/s, mid serves now." in out
    assert "p95 at most 30 ms on the server, accuracy at least 87 %." in " ".join(out.split())
    for profile in PROFILES:
        assert profile.name in out


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("--cpu-factor", "0"), "--cpu-factor"),
        (("--cpu-factor", "-1"), "--cpu-factor"),
        (("--cpu-factor", "nan"), "--cpu-factor"),
        (("--rate", "-5"), "--rate"),
        (("--rate", "inf"), "--rate"),
        (("--memory", "64 megabytes"), "--memory"),
        (("--memory", "-1Mi"), "--memory"),
        (("--active", "huge"), "--active"),
        (("--repository", "nonsense://somewhere"), "--repository"),
        (("--repository", "./not-there"), "--repository"),
    ],
)
def test_explain_refuses_nonsense_with_the_field(
    capsys: pytest.CaptureFixture[str], portfolio: Path, arguments: tuple[str, ...], field: str
) -> None:
    code, out, err = edgefolio(capsys, "explain", "-f", portfolio, *arguments)
    assert (code, out) == (2, "")
    assert f"field:  {field}" in err


def test_of_several_profiles_the_first_counts() -> None:
    profiles = profiles_from_manifest(manifest_of(threads=(1, 2)))
    assert [profile.name for profile in profiles] == ["tiny", "small", "mid", "large"]
    assert profiles[-1].mean_milliseconds == pytest.approx(10)


def test_a_batch_that_was_not_profiled_is_scaled_from_the_nearest() -> None:
    manifest = manifest_of()
    assert profiles_from_manifest(manifest)[-1] == PROFILES[-1].__class__(
        **{**vars(PROFILES[-1]), "load_milliseconds": 100}
    )
    assert profiles_from_manifest(manifest, batch_size=16)[-1].p95_milliseconds == pytest.approx(24)
    assert profiles_from_manifest(manifest, batch_size=2)[-1].p95_milliseconds == pytest.approx(3)


def test_explain_agrees_with_the_core_about_an_empty_portfolio() -> None:
    found = explain_choice(profiles=(), objectives=Objectives(), switching=Switching())
    assert (found.chosen, found.objectives_met, found.variants) == (None, False, ())


def test_replay_shows_changes_and_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = edgefolio(capsys, "replay", TRACES / "step.jsonl")
    assert (code, err) == (0, "")
    flat = " ".join(out.split())
    assert "20 requests/s; at 40 s other work slows the node threefold" in flat
    assert "201 cycles in 200 s; 4 switches." in flat
    assert "expected decision changes came." in flat


def test_replay_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = edgefolio(capsys, "replay", TRACES / "step.jsonl", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["switches"] == 4
    assert document["differences"] == []
    assert sum(document["secondsByVariant"].values()) == pytest.approx(document["seconds"])
    assert sum(document["cyclesByReason"].values()) == document["cycles"]
    switches = [entry for entry in document["changes"] if entry["action"] == "Switch"]
    assert [entry["target"] for entry in switches] == ["large", "small", "mid", "large"]
    assert all(entry["message"].endswith(".") for entry in document["changes"])


def test_replay_fails_where_a_decision_differs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = (TRACES / "step.jsonl").read_text().replace('"reason":"LatencyViolated"', '"reason":"Saturated"')
    path = tmp_path / "changed.jsonl"
    path.write_text(text)
    code, out, _ = edgefolio(capsys, "replay", path)
    assert code == 1
    assert "differs: change 6" in out
    code, out, _ = edgefolio(capsys, "replay", path, "--json")
    assert code == 1
    assert len(json.loads(out)["differences"]) == 1


@pytest.mark.parametrize("content", [None, b"", b"{}\n", b"\xff\xfe"])
def test_replay_refuses_what_is_no_trace(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "trace.jsonl"
    if content is not None:
        path.write_bytes(content)
    code, out, err = edgefolio(capsys, "replay", path)
    assert (code, out) == (2, "")
    assert "error: " in err
    assert "remedy: " in err
