"""Every mistake in a file is one error that names the field, shows the value and says what to do."""

from __future__ import annotations

import contextlib
import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefolio.errors import UserError
from edgefolio.specification.loading import load_portfolio, parse_portfolio

GOOD: dict[str, Any] = yaml.safe_load(
    """
apiVersion: edgefolio.dev/v1alpha1
kind: ModelPortfolio
metadata: {name: toy}
spec:
  source: {architecture: {library: timm, name: resnet18, options: {in_chans: 1}}}
  data: {trainingURI: builtin:digits}
  methods: {sparseTraining: {levels: 2}, oneShot: {macsPercent: [75, 50]}}
  repository: {uri: ./portfolios}
  serving: {modelName: toy}
  objectives: {latencyP95Milliseconds: 20}
"""
)
REMOVED = object()
PLACE = "PLACE"


def changed(path: str, value: Any) -> str:
    document = copy.deepcopy(GOOD)
    target: Any = document
    *folders, last = path.split(".")
    for part in folders:
        target = target.setdefault(part, {})
    if value is REMOVED:
        del target[last]
    else:
        target[last] = value
    return yaml.safe_dump(document)


def refused(text: str) -> UserError:
    with pytest.raises(UserError) as caught:
        parse_portfolio(text, name="portfolio.yaml")
    assert caught.value.exit_code == 2
    return caught.value


def test_the_good_one_is_read() -> None:
    assert parse_portfolio(yaml.safe_dump(GOOD)).metadata.name == "toy"


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("metadata.name", "UPPER", "should match"),
        ("metadata.name", "a" * 300, "should"),
        ("spec.objectives.latencyP95Milliseconds", 0, "greater than or equal to 1"),
        ("spec.objectives.latencyP95Milliseconds", "fast", "valid integer"),
        ("spec.objectives.latencyP95Milliseconds", 20.5, "valid integer"),
        ("spec.objectives.latencyMs", 3, "no such field"),
        ("spec.objectives.minAccuracyPercent", "high", "not a decimal number"),
        ("spec.objectives.minAccuracyPercent", 188, "at most 100"),
        ("spec.objectives.minAccuracyPercent", "-5", "at least 0"),
        ("spec.objectives.maxMemory", "64 MB", "not an amount of memory"),
        ("spec.serving.modelName", "Has Spaces", "should match"),
        ("spec.serving.threads", 0, "greater than or equal to 1"),
        ("spec.source.architecture.library", "keras", "'timm', 'torchvision', 'edgefolio' or 'factory'"),
        ("spec.source.architecture.name", "", "at least 1 character"),
        ("spec.methods.sparseTraining.learningRate", "1e-3", "not a decimal number"),
        ("spec.methods.sparseTraining.learningRate", -1, "above 0"),
        ("spec.methods.sparseTraining.momentum", "-0.1", "at least 0"),
        ("spec.methods.sparseTraining.prunePercent", 99, "less than or equal to 95"),
        ("spec.methods.sparseTraining.sparsity", "Random", "'Magnitude' or 'Group'"),
        ("spec.methods.quantization", "INT8", "'Disabled'"),
        ("spec.selection.maxVariants", 17, "less than or equal to 16"),
        ("spec.switching.policy", "auto", "'Auto', 'Recommend' or 'Paused'"),
        ("spec.switching.downAfterSeconds", -1, "greater than or equal to 0"),
        ("spec.switching.observeSeconds", 0, "above 0"),
        ("spec.switching.upMarginPercent", 101, "less than or equal to 100"),
        ("spec.seed", -1, "greater than or equal to 0"),
        ("spec.data.calibrationSamples", 1, "greater than or equal to 32"),
        ("spec.source.weightsURI", "", "at least 1 character"),
        ("extra", "1", "no such field"),
    ],
)
def test_a_wrong_value_is_named_with_its_field(path: str, value: Any, problem: str) -> None:
    error = refused(changed(path, value))
    assert error.field == path
    assert error.value == (str(value) if len(str(value)) < 300 else error.value)
    assert problem in error.problem
    assert error.remedy.endswith(".")


@pytest.mark.parametrize(
    ("path", "value", "field", "problem"),
    [
        ("spec.serving", REMOVED, "spec.serving", "it is missing"),
        ("metadata", REMOVED, "metadata", "it is missing"),
        ("spec", None, "spec", "must be a mapping"),
        ("spec", [1], "spec", "must be a mapping"),
        ("spec.repository", "./portfolios", "spec.repository", "must be a mapping"),
        ("spec.methods.oneShot.macsPercent", [], "spec.methods.oneShot", "macsPercent or latencyPercent"),
        ("spec.methods.oneShot.macsPercent", [75, 100], "spec.methods.oneShot.macsPercent.1", "less than or equal"),
        ("spec.source.architecture.options", {"a": {"b": 1}}, "spec.source.architecture.options.a", "valid string or"),
        ("spec.methods", {}, "spec.methods", "needs sparseTraining or oneShot"),
        ("spec.data", REMOVED, "spec.data", "data is needed"),
        ("spec.profiling", {"batchSizes": [8, 8]}, "spec.profiling.batchSizes", "twice"),
        (
            "spec.objectiveOverrides",
            [{"name": "a", "nodeSelector": {}, "objectives": {}}],
            "spec.objectiveOverrides.0.nodeSelector",
            "at least 1 item",
        ),
    ],
)
def test_a_mistake_is_placed_where_it_is(path: str, value: Any, field: str, problem: str) -> None:
    error = refused(changed(path, value))
    assert error.field == field
    assert problem in error.problem


def test_untrained_weights_need_training() -> None:
    error = refused(changed("spec.methods", {"oneShot": {}}))
    assert error.field == "spec.source"
    assert "sparseTraining is needed to train it" in error.problem


def test_more_mistakes_are_counted_by_field() -> None:
    document = copy.deepcopy(GOOD)
    document["spec"]["seed"] = -1
    document["spec"]["serving"]["threads"] = 0
    document["spec"]["source"]["architecture"]["options"] = {"a": {"b": 1}}
    assert "(2 more fields are wrong)" in refused(yaml.safe_dump(document)).problem


@pytest.mark.parametrize(
    ("text", "field", "problem"),
    [
        ("", "kind", "holds nothing"),
        ("null", "kind", "holds nothing"),
        ("- 1", "kind", "holds a list"),
        ("5", "kind", "holds a plain value"),
        ("a: 1", "kind", "not a ModelPortfolio"),
        ("kind: Deployment", "kind", "not a ModelPortfolio"),
        ("kind: ModelPortfolio", "apiVersion", "not known"),
        ("{kind: ModelPortfolio, apiVersion: edgefolio.dev/v2}", "apiVersion", "not known"),
        ("a: [", "-f", "no valid YAML"),
        ("\t", "-f", "no valid YAML"),
        ("\x00", "-f", "no valid YAML"),
        ("a: 1\n---\nb: 2", "-f", "single document"),
        ("kind: a\nkind: b", "-f", "'kind' is written twice in line 2"),
        ("spec:\n  seed: 1\n  seed: 2", "-f", "'seed' is written twice in line 3"),
        ("x: !!python/object/apply:os.system [ls]", "-f", "the tag 'python/object/apply:os.system' is not known"),
        ("[" * 5000, "-f", "nested too deeply"),
        ("when: 2026-99-99", "kind", "not a ModelPortfolio"),
    ],
)
def test_what_is_no_portfolio_at_all(text: str, field: str, problem: str) -> None:
    error = refused(text)
    assert error.field == field
    assert problem in error.problem
    assert "<unicode string>" not in error.problem


def test_anchors_and_merges_are_still_allowed() -> None:
    text = yaml.safe_dump(GOOD).replace("metadata:", "metadata: &base", 1)
    assert parse_portfolio(text).metadata.name == "toy"
    merged = changed("spec.objectiveOverrides", PLACE).replace(
        PLACE,
        """
    - &small {name: small, nodeSelector: {"1": a}, objectives: &asked {latencyP95Milliseconds: 5, maxMemory: 64Mi}}
    - {<<: *small, name: other, objectives: {<<: *asked, latencyP95Milliseconds: 9}}""",
    )
    first, second = parse_portfolio(merged).spec.objective_overrides
    assert (second.node_selector, second.objectives.max_memory) == (first.node_selector, "64Mi")
    assert (first.objectives.latency_p95_milliseconds, second.objectives.latency_p95_milliseconds) == (5, 9)


def test_json_is_read_as_it_is_written() -> None:
    for ascii_only in (False, True):
        document = copy.deepcopy(GOOD)
        document["spec"]["source"]["architecture"]["options"] = {"a": "🙂 é \t", "b": 10**18, "c": True, "d": None}
        portfolio = parse_portfolio(json.dumps(document, ensure_ascii=ascii_only))
        assert portfolio.spec.source is not None
        assert portfolio.spec.source.architecture.options == {"a": "🙂 é \t", "b": 10**18, "c": True, "d": None}


def test_dates_and_clock_times_stay_text() -> None:
    text = changed("spec.source.architecture.options", {"a": "A", "b": "B", "c": "C"})
    text = text.replace("a: A", "a: 2026-11-30").replace("b: B", "b: 22:22").replace("c: C", "c: 0x1F")
    portfolio = parse_portfolio(text)
    assert portfolio.spec.source is not None
    assert portfolio.spec.source.architecture.options == {"a": "2026-11-30", "b": "22:22", "c": 31}


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("abk: -[]{}\n\t'\"&*!#|>%@1.~"), max_size=60))
def test_no_text_ends_in_a_traceback(text: str) -> None:
    with pytest.raises(UserError):
        parse_portfolio(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(
    place=st.sampled_from(
        ["metadata", "spec.source", "spec.data", "spec.methods", "spec.switching", "spec.job", "spec.rollout", "spec"]
    ),
    value=JSON,
)
def test_any_value_in_any_place_is_read_or_refused(place: str, value: Any) -> None:
    with contextlib.suppress(UserError):
        assert parse_portfolio(changed(place, value)).kind == "ModelPortfolio"


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "portfolio.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    assert load_portfolio(path) == parse_portfolio(yaml.safe_dump(GOOD))


@pytest.mark.parametrize("kind", ["missing", "folder", "binary"])
def test_a_file_that_cannot_be_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "portfolio.yaml"
    if kind == "folder":
        path.mkdir()
    elif kind == "binary":
        path.write_bytes(os.urandom(16) + b"\xff\xfe")
    with pytest.raises(UserError, match="cannot be read") as caught:
        load_portfolio(path)
    assert (caught.value.field, caught.value.value) == ("-f", str(path))


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("examples/*.yaml")), ids=lambda path: path.name)
def test_every_example_is_valid(path: Path) -> None:
    assert load_portfolio(path).spec.serving.model_name
