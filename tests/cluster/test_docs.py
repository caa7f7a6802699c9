"""What the pages tell people to apply or to ask is taken by a real API server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from edge_portfolio import BATCH, SPEC

DOCS = Path(__file__).parents[2] / "docs" / "cluster"


def examples() -> list[Any]:
    """Every whole ModelPortfolio of the pages."""
    return [
        pytest.param(document, id=f"{page.name}-{number}")
        for page in sorted(DOCS.glob("*.md"))
        for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL))
        for document in yaml.safe_load_all(block)
        if document.get("kind") == "ModelPortfolio"
    ]


@pytest.mark.parametrize("document", examples())
def test_portfolios_of_the_pages_are_taken(namespace: Any, document: dict[str, Any]) -> None:
    document["metadata"]["namespace"] = namespace.namespace
    assert namespace.apply(document)["metadata"]["generation"] == 1


def test_questions_of_the_pages_are_understood(namespace: Any) -> None:
    assert "architecture" in namespace.kubectl("explain", "modelportfolio.spec.source")
    listed = namespace.kubectl(
        "auth", "can-i", "--list", "--as=system:serviceaccount:edgefolio-system:edgefolio-operator"
    )
    assert listed.splitlines()[0].split()[0] == "Resources"


def test_the_example_makes_what_these_tests_make() -> None:
    """Several variants of which a node can choose: the tests of nodes rely on it, and the guide for K3s shows it."""
    example = yaml.safe_load((DOCS.parents[1] / "examples" / "cluster" / "3-portfolio.yaml").read_text())["spec"]
    for part in ("source", "data", "methods", "selection", "profiling"):
        assert example[part] == SPEC[part], part
    page = (DOCS / "install-on-k3s.md").read_text()
    assert f"[{BATCH}, " in page, "requests of the size that was profiled"
    assert example["profiling"]["batchSizes"][-1] == BATCH
