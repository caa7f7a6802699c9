"""What the pages tell people to apply or to ask is taken by a real API server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

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
