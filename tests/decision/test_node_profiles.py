"""The profile that a node is decided with: its own class, else the nearest, and what that cannot know is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from draft_manifests import draft_manifest, draft_variant
from draft_profiles import EPYC, PI, XEON, draft_node_profile
from hypothesis import given
from hypothesis import strategies as st
from simulator import PROFILES

from edgefolio.decision import profiles_from_manifest
from edgefolio.decision.profiles import Measured, choose_profile, rescaled
from edgefolio.decision.types import State
from edgefolio.processor_class import INT8_FLAGS, RELEVANT_FLAGS, Processor, class_of
from edgefolio.specification.conditions import truncated

SAMPLES = Path(__file__).parent.parent / "unit" / "cpuinfo"
NODES = {path.stem: Processor.of(path.read_text(encoding="utf-8")) for path in sorted(SAMPLES.iterdir())}


def of_manifest(node: Processor) -> Measured:
    return Measured(name=None, model=node.model, instruction_sets=node.instruction_sets)


def of_class(node: Processor) -> Measured:
    return Measured(name=node.class_name, model=node.model, instruction_sets=node.instruction_sets)


@pytest.mark.parametrize("name", NODES)
def test_a_node_takes_the_profile_of_its_own_class_whatever_else_is_there(name: str) -> None:
    node = NODES[name]
    others = [of_class(other) for stem, other in NODES.items() if other.class_name != node.class_name]
    choice = choose_profile(node, [of_manifest(XEON), *others, of_class(node)])
    assert choice.is_own
    assert choice.measured.name == node.class_name
    assert "own class" in choice.evidence
    assert choose_profile(node, [of_manifest(node), *others]).measured.name is None


def test_samples_of_different_processors_are_of_different_classes() -> None:
    assert len({node.class_name for node in NODES.values()}) == len(
        {(n.model, n.instruction_sets) for n in NODES.values()}
    )
    for node in NODES.values():
        assert class_of(node.model, node.flags) == class_of(node.model, reversed(node.instruction_sets))


@pytest.mark.parametrize("name", NODES)
def test_what_a_node_lacks_for_int8_is_said(name: str) -> None:
    node, made_on = NODES[name], NODES["intel-xeon-platinum-8481c"]
    choice = choose_profile(node, [of_manifest(made_on)])
    lacking = set(made_on.instruction_sets) & INT8_FLAGS - set(node.instruction_sets)
    assert ("int8 variants may be much slower" in choice.evidence) == bool(lacking)
    # Where everything differs the names of what is missing say nothing.
    assert all((flag in choice.evidence) != node.is_arm for flag in lacking)
    assert ("another architecture" in choice.evidence) == node.is_arm
    assert choice.is_own == (node.class_name == made_on.class_name)
    # It fits into an order as it is.
    assert truncated(choice.evidence) == choice.evidence


def test_the_int8_variants_are_named_where_they_are_known() -> None:
    node, made_on = NODES["amd-epyc-7763"], of_manifest(NODES["intel-xeon-platinum-8481c"])
    named = choose_profile(node, [made_on], int8=("a-int8", "b-int8")).evidence
    assert "a-int8, b-int8 may be much slower here than predicted" in named
    # Without any nothing is said of them.
    plain = choose_profile(node, [made_on], int8=()).evidence
    assert "int8 variants" not in plain
    assert "variants may be slower here than predicted" in plain
    many = choose_profile(node, [made_on], int8=[f"v{number}" for number in range(16)]).evidence
    assert "v0, v1, v2 and 13 more" in many


def test_a_faster_node_is_said_to_be_one() -> None:
    choice = choose_profile(NODES["graviton-3"], [of_manifest(NODES["raspberry-pi-4"])])
    assert "has asimddp, i8mm, which that machine lacks: int8 variants may be faster" in choice.evidence


def test_the_nearest_is_of_the_same_architecture_and_multiplies_alike() -> None:
    pi4, pi5, epyc = NODES["raspberry-pi-4"], NODES["raspberry-pi-5"], NODES["amd-epyc-7763"]
    xeon = NODES["intel-xeon-platinum-8481c"]
    taken = choose_profile(NODES["graviton-2"], [of_manifest(xeon), of_class(pi4), of_class(pi5), of_class(epyc)])
    assert taken.measured.name == pi5.class_name
    taken = choose_profile(NODES["amd-fx-8350"], [of_manifest(xeon), of_class(pi4), of_class(epyc)])
    assert taken.measured.name == epyc.class_name
    # As near as another one, the manifest's stays.
    assert (
        choose_profile(XEON, [of_manifest(EPYC), of_class(EPYC.__class__(model="x", flags=EPYC.flags))]).measured.name
        is None
    )


def test_an_unknown_node_is_decided_with_the_manifests() -> None:
    choice = choose_profile(None, [of_manifest(XEON), of_class(EPYC)])
    assert (choice.measured.name, choice.is_own) == (None, False)
    assert "not known" in choice.evidence


processors = st.builds(
    Processor, model=st.text(max_size=300), flags=st.frozensets(st.sampled_from((*RELEVANT_FLAGS, "sse2", "mmx")))
)


@given(node=processors, candidates=st.lists(processors, min_size=1, max_size=8))
def test_any_processor_has_a_class_and_a_choice(node: Processor, candidates: list[Processor]) -> None:
    first, *rest = candidates
    choice = choose_profile(node, [of_manifest(first), *map(of_class, rest)])
    assert choice.is_own == any(entry.class_name == node.class_name for entry in candidates)
    assert choice.evidence.isprintable()
    assert truncated(choice.evidence) == choice.evidence
    assert len(node.class_name) <= 63


def test_figures_are_those_of_the_node_and_ranks_those_of_the_manifest() -> None:
    manifest = draft_manifest([draft_variant(name, rank, b"x") for rank, name in enumerate("ab", 1)], model="toy")
    plain = profiles_from_manifest(manifest)
    found = profiles_from_manifest(manifest, measured=draft_node_profile(manifest, PI, times=3))
    for before, after in zip(plain, found, strict=True):
        assert (after.name, after.rank, after.accuracy_percent) == (before.name, before.rank, before.accuracy_percent)
        assert after.mean_milliseconds == pytest.approx(3 * before.mean_milliseconds)
        assert (after.load_milliseconds, after.memory_peak_bytes, after.memory_steady_bytes) == (7, 11, 5)


@given(factor=st.floats(0.02, 1000), times=st.floats(0.01, 100))
def test_a_new_profile_changes_no_estimate_of_what_serves(factor: float, times: float) -> None:
    """The active variant is as fast as it was measured, whatever the profile says; others follow the new profile."""
    before = PROFILES
    after = tuple(
        type(entry)(**{**vars(entry), "mean_milliseconds": entry.mean_milliseconds * times}) for entry in before
    )
    active = before[0]
    state = rescaled(State(compute_factor=factor), before=before, after=after, active=active.name)
    expected = min(1000.0, max(0.02, factor / times))
    assert state.compute_factor == pytest.approx(expected)


def test_without_what_serves_the_factor_is_measured_anew() -> None:
    state = State(compute_factor=3.0, factor_updated_at=5.0)
    for active in (None, "another"):
        found = rescaled(state, before=PROFILES, after=PROFILES, active=active)
        assert (found.compute_factor, found.factor_updated_at) == (1.0, None)
