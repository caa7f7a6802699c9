"""The command line and the API server refuse the same specs: here the command line, tests/cluster the API server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from edgefolio.crd import definitions
from edgefolio.specification.endpoint import EndpointSpecification
from edgefolio.specification.resource import PortfolioSpecification

CASES = yaml.safe_load((Path(__file__).parents[1] / "cluster" / "rules.yaml").read_text())
MODELS = {"ModelPortfolio": PortfolioSpecification, "ModelEndpoint": EndpointSpecification}


def cases(outcome: str, *, command_line_only: bool = False) -> Iterator[Any]:
    for kind in MODELS:
        for case in CASES[kind]:
            if case.get("commandLine") or not command_line_only:
                for number, spec in enumerate(case[outcome]):
                    yield pytest.param(kind, spec, case["message"], id=f"{kind}: {case['message']} ({number})")


@pytest.mark.parametrize(("kind", "spec", "message"), [*cases("accepted")])
def test_accepted(kind: str, spec: dict[str, Any], message: str) -> None:
    MODELS[kind].model_validate(spec)


@pytest.mark.parametrize(("kind", "spec", "message"), [*cases("refused", command_line_only=True)])
def test_refused(kind: str, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        MODELS[kind].model_validate(spec)
    assert message in str(caught.value)


def messages(schema: dict[str, Any]) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield rule["message"]
    for inner in [*schema.get("properties", {}).values(), schema.get("items")]:
        if inner:
            yield from messages(inner)


@pytest.mark.parametrize("definition", [definitions.model_portfolio(), definitions.model_endpoint()], ids=list(MODELS))
def test_every_rule_has_cases(definition: dict[str, Any]) -> None:
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    written = [case["message"] for case in CASES[definition["spec"]["names"]["kind"]]]
    assert set(messages(schema)) == set(written)
    assert all(case["accepted"] and case["refused"] for case in CASES[definition["spec"]["names"]["kind"]])
