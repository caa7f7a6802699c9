"""The resource: what is written is what is read, and numbers are what they seem."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from edgefolio.errors import UserError
from edgefolio.shown_text import shown
from edgefolio.specification import Architecture, ModelPortfolio, Switching
from edgefolio.specification.loading import ignored_on_one_machine, parse_portfolio
from edgefolio.specification.validation.base import ByteQuantity, DecimalString, bytes_of, resource_name
from edgefolio.specification.validation.validation_errors import bytes_option

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
URIS = st.sampled_from(["./portfolios", "/srv/portfolios", "s3://bucket/prefix", "builtin:digits", "data.npz"])
DECIMALS = st.decimals(min_value=0, max_value=99, places=3, allow_nan=False).map(lambda value: format(value, "f"))


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


OBJECTIVES = optional(
    latencyP95Milliseconds=st.integers(1000, 600_000),
    networkLatencyMilliseconds=st.integers(0, 999),
    minAccuracyPercent=DECIMALS,
    maxMemory=st.sampled_from(["64Mi", "2Gi", "500M", "1048576", "1.5Gi"]),
)
SWITCHING = optional(
    policy=st.sampled_from(["Auto", "Recommend", "Paused"]),
    downAfterSeconds=st.integers(0, 86_400),
    upAfterSeconds=st.integers(0, 86_400),
    minDwellSeconds=st.integers(0, 86_400),
    maxSwitchesPerHour=st.integers(1, 3600),
    upMarginPercent=st.integers(0, 100),
    windowSeconds=st.integers(1, 600),
    observeSeconds=st.sampled_from(["0.5", "1", "30"]),
)
NORMALIZATIONS = st.integers(1, 16).flatmap(
    lambda channels: st.fixed_dictionaries(
        {
            "mean": st.lists(DECIMALS, min_size=channels, max_size=channels),
            "standardDeviation": st.lists(DECIMALS.filter(float), min_size=channels, max_size=channels),
        }
    )
)
METHODS = optional(
    sparseTraining=optional(
        levels=st.integers(0, 32),
        sparsity=st.sampled_from(["Magnitude", "Group"]),
        learningRate=st.sampled_from(["0.1", "0.00001"]),
        rewindStep=st.integers(0, 1000),
    ),
    oneShot=optional(
        macsPercent=st.lists(st.integers(5, 99), min_size=1, max_size=16),
        latencyPercent=st.lists(st.integers(5, 95), min_size=1, max_size=16),
    ),
)
SPECIFICATIONS = st.fixed_dictionaries(
    {
        "repository": st.fixed_dictionaries({"uri": URIS}),
        "serving": st.fixed_dictionaries({"modelName": NAMES}, optional={"threads": st.integers(1, 256)}),
    },
    optional={
        "objectives": OBJECTIVES,
        "switching": SWITCHING,
        "methods": METHODS,
        "data": st.fixed_dictionaries(
            {"trainingURI": URIS},
            optional={"calibrationSamples": st.integers(32, 65536), "normalization": NORMALIZATIONS},
        ),
        "selection": optional(maxVariants=st.integers(1, 16), maxAccuracyLossPoints=DECIMALS),
        "profiling": optional(batchSizes=st.sets(st.integers(1, 4096), min_size=1, max_size=4).map(list)),
        "seed": st.integers(0, 2**31 - 1),
        "objectiveOverrides": st.lists(
            st.fixed_dictionaries(
                {
                    "name": NAMES,
                    "nodeSelector": st.dictionaries(NAMES, NAMES, min_size=1, max_size=3),
                    "objectives": OBJECTIVES,
                }
            ),
            max_size=3,
            unique_by=lambda entry: entry["name"],
        ),
    },
)


def document(spec: dict[str, Any], name: str = "toy") -> dict[str, Any]:
    return {
        "apiVersion": "edgefolio.dev/v1alpha1",
        "kind": "ModelPortfolio",
        "metadata": {"name": name, "labels": {"team": "vision"}},
        "spec": spec,
    }


@settings(max_examples=150, deadline=None)
@given(spec=SPECIFICATIONS, name=NAMES)
def test_what_is_written_is_what_is_read(spec: dict[str, Any], name: str) -> None:
    portfolio = parse_portfolio(yaml.safe_dump(document(spec, name)))
    written = portfolio.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert written == document(spec, name)
    assert parse_portfolio(yaml.safe_dump(written)) == portfolio
    full = portfolio.model_dump(mode="json", by_alias=True, exclude_none=True)
    again = parse_portfolio(yaml.safe_dump(full))
    assert again.spec == portfolio.spec


@settings(max_examples=100, deadline=None)
@given(spec=SPECIFICATIONS)
def test_the_resource_holds_no_floats(spec: dict[str, Any]) -> None:
    def floats(value: Any) -> bool:
        if isinstance(value, dict):
            return any(floats(entry) for entry in value.values())
        if isinstance(value, list):
            return any(floats(entry) for entry in value)
        return isinstance(value, float)

    assert not floats(parse_portfolio(yaml.safe_dump(document(spec))).model_dump(mode="json", by_alias=True))


def minimal() -> dict[str, Any]:
    return {"repository": {"uri": "./p"}, "serving": {"modelName": "toy"}}


def test_a_resource_is_frozen_and_knows_its_defaults() -> None:
    portfolio = ModelPortfolio.model_validate(document(minimal()))
    assert portfolio.spec.switching == Switching()
    assert portfolio.spec.switching.down_after_seconds == 10
    with pytest.raises(ValidationError, match="frozen"):
        portfolio.spec.seed = 1  # type: ignore[misc]


def test_what_only_a_cluster_reads_is_named() -> None:
    spec = {
        **minimal(),
        "job": {"image": "example/pruner:1"},
        "repository": {"uri": "s3://bucket/p", "secretRef": {"name": "credentials"}},
        "objectiveOverrides": [{"name": "jetson", "nodeSelector": {"arch": "arm64"}, "objectives": {}}],
    }
    ignored = ignored_on_one_machine(parse_portfolio(yaml.safe_dump(document(spec))))
    assert ignored == ("spec.job", "spec.objectiveOverrides", "spec.repository.secretRef")
    assert ignored_on_one_machine(parse_portfolio(yaml.safe_dump(document(minimal())))) == ()


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ("training_uri", "trainingURI"),
        ("latency_p95_milliseconds", "latencyP95Milliseconds"),
        ("max_switches_per_hour", "maxSwitchesPerHour"),
        ("seed", "seed"),
    ],
)
def test_names_are_written_as_kubernetes_writes_them(inside: str, outside: str) -> None:
    assert resource_name(inside) == outside


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [("0", 0), ("1048576", 2**20), ("64Mi", 2**26), ("2Gi", 2**31), ("1.5Ki", 1536), ("500M", 5 * 10**8), ("3k", 3000)],
)
def test_bytes_of_a_quantity(quantity: str, expected: int) -> None:
    assert bytes_of(TypeAdapter(ByteQuantity).validate_python(quantity)) == expected


@settings(max_examples=100, deadline=None)
@given(amount=st.integers(0, 10**12 - 1))
def test_bytes_without_a_unit_are_bytes(amount: int) -> None:
    assert bytes_of(TypeAdapter(ByteQuantity).validate_python(amount)) == amount
    assert bytes_of(f"{amount}Mi") == amount * 2**20


@settings(max_examples=200, deadline=None)
@given(value=st.floats(min_value=1e-9, max_value=1e8).map(lambda value: round(value, 9)) | st.integers(-(10**8), 10**8))
def test_a_number_in_yaml_is_the_decimal_that_was_written(value: float) -> None:
    text = TypeAdapter(DecimalString).validate_python(value)
    assert float(Decimal(text)) == value


@pytest.mark.parametrize("value", [True, None, [], "1e-3", "1,5", "", "abc", "٣", float("nan"), float("inf"), "1."])
def test_what_is_no_decimal_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(DecimalString).validate_python(value)


@pytest.mark.parametrize(("text", "least"), [("0", 1), ("64 MB", 0), ("-1Mi", 0), ("", 0), ("1Mi\n", 0), ("250m", 0)])
def test_an_option_that_is_no_amount_of_memory_is_named(text: str, least: int) -> None:
    with pytest.raises(UserError, match="not an amount of memory") as caught:
        bytes_option(text, field="--memory", least=least)
    assert (caught.value.field, caught.value.value) == ("--memory", shown(text))
    assert bytes_option("1.5Ki", field="--memory", least=1536) == 1536


def test_a_library_that_is_a_kind_of_file_is_answered_with_its_field() -> None:
    with pytest.raises(ValidationError, match=r"source\.modelURI"):
        Architecture.model_validate({"library": "onnx", "name": "model.onnx"})
    with pytest.raises(ValidationError, match="timm"):
        Architecture.model_validate({"library": "keras", "name": "m"})
