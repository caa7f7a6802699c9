"""The committed custom resource definitions are those of the specification."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgefolio.crd import definitions

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "manifests" / "crds"


def test_committed_files_are_not_stale() -> None:
    assert definitions.stale(FOLDER) == []
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    assert sorted(kustomization["resources"]) == sorted(definitions.files())
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted([*definitions.files(), "kustomization.yaml"])


def test_a_changed_file_is_stale(tmp_path: Path) -> None:
    assert definitions.main([str(tmp_path)]) == 0
    assert definitions.main(["--check", str(tmp_path)]) == 0
    changed = tmp_path / "modelendpoints.edgefolio.dev.yaml"
    changed.write_text(changed.read_text().replace("maximum", "minimum", 1))
    assert definitions.main(["--check", str(tmp_path)]) == 1


def nodes(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}.{key}")


@pytest.mark.parametrize(
    "definition", [definitions.model_portfolio(), definitions.model_endpoint()], ids=["portfolio", "endpoint"]
)
def test_every_field_of_the_spec_is_described(definition: dict[str, Any]) -> None:
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    undescribed = [
        path
        for part in ("spec", "status")
        for path, node in nodes(schema[part], part)
        if "description" not in node and not path.endswith((".items", ".additionalProperties"))
    ]
    assert undescribed == []


def test_definitions_stay_small_enough_for_client_side_apply() -> None:
    # kubectl apply keeps the last version in an annotation, which may hold 256 KiB.
    assert all(len(yaml.safe_dump(yaml.safe_load(content))) < 200_000 for content in definitions.files().values())
