"""Which level's objective counts, and what becomes of what cannot be read."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefolio.specification.objectives import ObjectiveOverride, ObjectivesSpecification
from edgefolio.specification.validation.base import bytes_of
from edgefolio_operator.endpoints.objectives import ANNOTATIONS, Level, resolve

LATENCY = "slo.edgefolio.dev/latency-p95-ms"
ACCURACY = "slo.edgefolio.dev/min-accuracy-percent"
NETWORK = "slo.edgefolio.dev/network-latency-ms"
MEMORY = "slo.edgefolio.dev/max-memory"


def override(latency: int, *, name: str = "jetson", **labels: str) -> ObjectiveOverride:
    objectives = ObjectivesSpecification(latency_p95_milliseconds=latency)
    return ObjectiveOverride(name=name, node_selector=labels or {"class": "jetson"}, objectives=objectives)


LEVELS = {
    Level.POD: {"pod_annotations": {LATENCY: "1"}},
    Level.NODE: {"node_annotations": {LATENCY: "2"}},
    Level.OVERRIDE: {"overrides": (override(3),), "node_labels": {"class": "jetson"}},
    Level.SPEC: {"spec": ObjectivesSpecification(latency_p95_milliseconds=4)},
    Level.NAMESPACE: {"namespace_annotations": {LATENCY: "5"}},
}


@pytest.mark.parametrize("nearest", list(Level))
def test_the_nearest_level_wins(nearest: Level) -> None:
    present = list(Level)[list(Level).index(nearest) :]
    given_levels = {"spec": ObjectivesSpecification()}
    for level in present:
        given_levels |= LEVELS[level]
    resolved = resolve(**given_levels)
    assert resolved.objectives.latency_p95_milliseconds == list(Level).index(nearest) + 1
    assert resolved.issues == ()


def test_each_field_comes_from_its_own_level() -> None:
    resolved = resolve(
        spec=ObjectivesSpecification(min_accuracy_percent="88.0", max_memory="64Mi"),
        pod_annotations={LATENCY: "20", "unrelated": "x"},
        namespace_annotations={MEMORY: "1Gi", NETWORK: "3"},
    )
    assert resolved.objectives == ObjectivesSpecification(
        latency_p95_milliseconds=20, min_accuracy_percent="88.0", max_memory="64Mi", network_latency_milliseconds=3
    )


def test_an_override_that_names_no_network_latency_leaves_the_spec_s() -> None:
    resolved = resolve(
        spec=ObjectivesSpecification(latency_p95_milliseconds=20, network_latency_milliseconds=5),
        overrides=(override(10),),
        node_labels={"class": "jetson"},
    )
    assert resolved.objectives.latency_p95_milliseconds == 10
    assert resolved.objectives.network_latency_milliseconds == 5


def test_the_first_matching_override_counts_and_needs_all_its_labels() -> None:
    overrides = (
        override(1, name="both", a="1", b="2"),
        override(2, name="one", a="1"),
        override(3, name="late", a="1"),
    )
    resolved = resolve(spec=ObjectivesSpecification(), overrides=overrides, node_labels={"a": "1", "c": "3"})
    assert resolved.objectives.latency_p95_milliseconds == 2


@pytest.mark.parametrize("text", ["", "fast", "-3", "0", "1.5", "20ms", "1e3", "²", "9" * 30, "600001"])
def test_a_malformed_annotation_is_an_issue_and_the_next_level_counts(text: str) -> None:
    resolved = resolve(
        spec=ObjectivesSpecification(latency_p95_milliseconds=4),
        pod_annotations={LATENCY: text},
        node_annotations={LATENCY: "7"},
    )
    assert resolved.objectives.latency_p95_milliseconds == 7
    assert [(issue.level, issue.key, issue.reason) for issue in resolved.issues] == [
        (Level.POD, LATENCY, "MalformedObjective")
    ]
    assert LATENCY in resolved.issues[0].message


def test_an_unknown_key_is_an_issue() -> None:
    resolved = resolve(spec=ObjectivesSpecification(), node_annotations={"slo.edgefolio.dev/latency": "20"})
    assert resolved.issues[0].reason == "UnknownObjective"
    assert "latency-p95-ms" in resolved.issues[0].message


@pytest.mark.parametrize(
    ("annotations", "taken"),
    [
        pytest.param({LATENCY: "10"}, True, id="latency tighter"),
        pytest.param({LATENCY: "20"}, True, id="latency equal"),
        pytest.param({LATENCY: "21"}, False, id="latency looser"),
        pytest.param({ACCURACY: "90.5"}, True, id="accuracy tighter"),
        pytest.param({ACCURACY: "9"}, False, id="accuracy looser"),
        pytest.param({MEMORY: "65536Ki"}, True, id="memory equal in another unit"),
        pytest.param({MEMORY: "100M"}, False, id="memory looser"),
        pytest.param({NETWORK: "3"}, True, id="network tighter"),
        pytest.param({NETWORK: "1"}, False, id="network looser"),
    ],
)
def test_tighten_only(annotations: dict[str, str], taken: bool) -> None:
    spec = ObjectivesSpecification(
        latency_p95_milliseconds=20, min_accuracy_percent="88", max_memory="64Mi", network_latency_milliseconds=2
    )
    resolved = resolve(spec=spec, annotation_policy="TightenOnly", node_annotations=annotations)
    field = ANNOTATIONS[next(iter(annotations)).partition("/")[2]]
    node = resolve(spec=ObjectivesSpecification(), node_annotations=annotations).objectives
    assert getattr(resolved.objectives, field) == getattr(node if taken else spec, field)
    assert [issue.reason for issue in resolved.issues] == ([] if taken else ["ObjectiveNotTightened"])


def test_a_namespace_default_is_never_a_loosening() -> None:
    resolved = resolve(
        spec=ObjectivesSpecification(), annotation_policy="TightenOnly", namespace_annotations={LATENCY: "100"}
    )
    assert resolved.objectives.latency_p95_milliseconds == 100


def test_ignore_reads_no_annotation() -> None:
    resolved = resolve(
        spec=ObjectivesSpecification(),
        annotation_policy="Ignore",
        pod_annotations={LATENCY: "x"},
        namespace_annotations={LATENCY: "100"},
    )
    assert resolved.objectives == ObjectivesSpecification()
    assert resolved.issues == ()


def test_levels_that_contradict_each_other_are_an_issue() -> None:
    resolved = resolve(
        spec=ObjectivesSpecification(latency_p95_milliseconds=20, network_latency_milliseconds=10),
        pod_annotations={LATENCY: "8"},
    )
    assert resolved.objectives == ObjectivesSpecification(latency_p95_milliseconds=8)
    assert resolved.issues[0].level is Level.POD


ANNOTATED = st.dictionaries(
    st.sampled_from([LATENCY, ACCURACY, NETWORK, MEMORY, "slo.edgefolio.dev/x", "other"]),
    st.one_of(st.text(max_size=30), st.integers(-5, 1000).map(str), st.sampled_from(["64Mi", "1.5", "88.0", "2Gi"])),
)
SPECS = st.builds(
    ObjectivesSpecification,
    latency_p95_milliseconds=st.none() | st.integers(50, 1000),
    network_latency_milliseconds=st.integers(0, 49),
    min_accuracy_percent=st.none() | st.integers(0, 100).map(str),
    max_memory=st.none() | st.integers(1, 1000).map(lambda number: f"{number}Mi"),
)


@given(spec=SPECS, pod=ANNOTATED, node=ANNOTATED, namespace=ANNOTATED)
def test_total_and_tighten_only_never_loosens(
    spec: ObjectivesSpecification, pod: dict[str, str], node: dict[str, str], namespace: dict[str, str]
) -> None:
    levels = {"pod_annotations": pod, "node_annotations": node, "namespace_annotations": namespace}
    resolved = resolve(spec=spec, **levels)
    asked = {field for field in ObjectivesSpecification.model_fields if getattr(spec, field) is not None}
    missing = {field for field in asked if getattr(resolved.objectives, field) is None}
    assert missing == set(), "what the spec asks is never lost"
    tight = resolve(spec=spec, annotation_policy="TightenOnly", **levels).objectives
    if spec.latency_p95_milliseconds is not None:
        assert tight.latency_p95_milliseconds <= spec.latency_p95_milliseconds
    if spec.min_accuracy_percent is not None:
        assert Decimal(tight.min_accuracy_percent) >= Decimal(spec.min_accuracy_percent)
    if spec.max_memory is not None:
        assert bytes_of(tight.max_memory) <= bytes_of(spec.max_memory)
