"""``methods.quantization`` in both of its forms, and what older readers make of a quantized variant."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import yaml
from draft_manifests import draft_manifest, draft_variant
from pydantic import ValidationError

from edgefolio.contract.making_key import making_key, making_specification
from edgefolio.crd.schema import structural_schema
from edgefolio.errors import IntegrityError, UserError
from edgefolio.manifest import Manifest, QuantizationRecord
from edgefolio.specification import Methods, PortfolioSpecification, Quantization
from edgefolio.specification.loading import parse_portfolio
from edgefolio.specification.validation.tolerant import salvaged, understood

DOCUMENT: dict[str, Any] = yaml.safe_load(
    """
apiVersion: edgefolio.dev/v1alpha1
kind: ModelPortfolio
metadata: {name: toy}
spec:
  source: {architecture: {library: timm, name: resnet18}}
  data: {trainingURI: builtin:digits}
  methods: {sparseTraining: {levels: 2}}
  repository: {uri: ./portfolios}
  serving: {modelName: toy}
"""
)


def specification(quantization: Any = None) -> PortfolioSpecification:
    document = copy.deepcopy(DOCUMENT)
    if quantization is not None:
        document["spec"]["methods"]["quantization"] = quantization
    return parse_portfolio(yaml.safe_dump(document)).spec


def test_the_stored_form_is_still_read_and_its_runs_keep_their_keys() -> None:
    absent, stored = specification(), specification("Disabled")
    assert absent == stored
    assert making_key(absent) == making_key(stored)
    assert making_specification(stored)["methods"]["quantization"] == "Disabled"
    # As the version before computed it.
    assert making_key(stored) == "0886ad481e71dc0c"


def test_asking_for_it_is_another_run() -> None:
    asked = specification({"precision": "Int8"})
    assert asked.methods.quantization == Quantization(precision="Int8")
    keys = {
        making_key(specification()),
        making_key(asked),
        making_key(specification({"precision": "Int8", "maxAccuracyLossPoints": "1"})),
    }
    assert len(keys) == 3
    assert making_specification(asked)["methods"]["quantization"] == {
        "precision": "Int8",
        "calibrationSamples": 512,
        "maxAccuracyLossPoints": "0.3",
    }


@pytest.mark.parametrize(
    ("value", "field", "problem"),
    [
        ("INT8", "", "'Disabled'"),
        ({"precision": "Int4"}, ".precision", "'Int8'"),
        ({}, ".precision", "it is missing"),
        ({"precision": "Int8", "calibrationSample": 3}, ".calibrationSample", "there is no such field"),
        ({"precision": "Int8", "calibrationSamples": 31}, ".calibrationSamples", "greater than or equal to 32"),
        ({"precision": "Int8", "maxAccuracyLossPoints": "-1"}, ".maxAccuracyLossPoints", "at least 0"),
        (3, "", "mapping of fields"),
        (True, "", "mapping of fields"),
        (["Int8"], "", "mapping of fields"),
    ],
)
def test_a_mistake_is_named_with_its_field(value: Any, field: str, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        specification(value)
    assert caught.value.field == f"spec.methods.quantization{field}"
    assert problem in caught.value.problem


def test_what_a_newer_version_stored_is_read_as_far_as_it_is_known() -> None:
    newer = {"quantization": {"precision": "Int8", "newer": {"a": 1}}, "newer": 1}
    assert understood(Methods, newer).quantization == Quantization(precision="Int8")
    found, dropped = salvaged(Methods, {"quantization": {"precision": "Int2"}})
    assert found == Methods()
    assert dropped == (("quantization",),)
    with pytest.raises(ValidationError):
        understood(Methods, {"quantization": {"precision": "Int2", "newer": 1}})


def test_the_definition_takes_both_forms() -> None:
    """One node without a type, as Kubernetes allows it; each bound applies to values of its own kind only."""
    schema = structural_schema(Methods)["properties"]["quantization"]
    assert "type" not in schema
    assert schema["x-kubernetes-preserve-unknown-fields"] is True
    assert (schema["default"], schema["pattern"], schema["required"]) == ("Disabled", "^Disabled$", ["precision"])
    assert schema["properties"]["precision"]["enum"] == ["Int8"]
    assert schema["properties"]["calibrationSamples"]["default"] == 512


def manifest(**fields: Any) -> Manifest:
    return draft_manifest(
        [draft_variant("dense", 1, b"dense"), draft_variant("dense-int8", 2, b"x", **fields)], model="m"
    )


RECORD = QuantizationRecord(
    float_parent="dense", calibration_samples=512, accuracy_loss_points=0.1, max_accuracy_loss_points=0.3, int8_layers=3
)


def test_a_quantized_variant_says_how_and_comes_back() -> None:
    written = manifest(precision="Int8", quantization=RECORD)
    assert Manifest.from_bytes(written.to_bytes(), location="here") == written
    first, second = json.loads(written.to_bytes())["variants"]
    # Readers from before these fields take a manifest without quantized variants, and refuse one with any.
    assert not {"precision", "quantization"} & set(first)
    assert (second["precision"], second["quantization"]["floatParent"]) == ("Int8", "dense")


@pytest.mark.parametrize("fields", [{"precision": "Int8"}, {"quantization": RECORD}])
def test_precision_and_record_belong_together(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="belong together"):
        manifest(**fields)


def test_a_precision_of_a_later_version_is_refused_as_a_whole() -> None:
    """As a reader from before a field or value does it: half understood, a variant could be served wrongly."""
    document = json.loads(manifest(precision="Int8", quantization=RECORD).to_bytes())
    for change in ({"precision": "Int4"}, {"sparsity": "2:4"}):
        changed = copy.deepcopy(document)
        changed["variants"][1].update(change)
        with pytest.raises(IntegrityError, match=r"variants\.1"):
            Manifest.from_bytes(json.dumps(changed).encode(), location="here")
