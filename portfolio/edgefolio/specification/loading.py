"""Loader of ModelPortfolios from YAML; every mistake becomes one error that names the field and the remedy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from edgefolio.errors import UserError
from edgefolio.specification.resource import API_VERSION, ModelPortfolio
from edgefolio.specification.validation_errors import first_mistake

#: Fields that only a cluster reads; on one machine they are ignored, with a note.
CLUSTER_FIELDS = (
    "job",
    "rollout",
    "objectiveOverrides",
    "serving.http",
    "serving.managed",
    "serving.adopt",
    "repository.secretRef",
    "repository.readSecretRef",
    "repository.checkIntervalSeconds",
    "repository.manifestDigest",
)


def load_portfolio(path: Path) -> ModelPortfolio:
    """The ModelPortfolio in the file ``path``. Raises :class:`UserError` for anything that is not one."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"the file cannot be read ({error.__class__.__name__}).",
            field="-f",
            value=path,
            remedy="Name a YAML file that holds a ModelPortfolio.",
        ) from error
    return parse_portfolio(text, name=str(path))


def parse_portfolio(text: str, *, name: str = "text") -> ModelPortfolio:
    """The ModelPortfolio that ``text`` (YAML, one document) describes; ``name`` stands in errors."""
    try:
        document = yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        fault = "it is nested too deeply" if isinstance(error, RecursionError) else _yaml_fault(error)
        raise UserError(f"it is no valid YAML: {fault}.", field="-f", value=name, remedy="Mend the file.") from error
    if not isinstance(document, Mapping) or document.get("kind") != "ModelPortfolio":
        kind = document.get("kind") if isinstance(document, Mapping) else None
        what = "the document" if isinstance(document, Mapping) else f"{name} holds {_kind_of(document)}; it"
        raise UserError(
            f"{what} is not a ModelPortfolio.",
            field="kind",
            value=kind,
            remedy=f"Write apiVersion: {API_VERSION} and kind: ModelPortfolio.",
        )
    if document.get("apiVersion") != API_VERSION:
        raise UserError(
            "this schema version is not known.",
            field="apiVersion",
            value=document.get("apiVersion"),
            remedy=f"Use {API_VERSION}, or the edgefolio that knows the other version.",
        )
    try:
        return ModelPortfolio.model_validate(document)
    except ValidationError as error:
        raise first_mistake(error, document, ModelPortfolio) from error


def ignored_on_one_machine(portfolio: ModelPortfolio) -> tuple[str, ...]:
    """Fields (``spec.job``, ...) that are set but that only a cluster reads."""
    written = portfolio.spec.model_dump(by_alias=True, exclude_unset=True, mode="json")

    def is_set(dotted: str) -> bool:
        value: Any = written
        for part in dotted.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return bool(value)

    return tuple(f"spec.{field}" for field in CLUSTER_FIELDS if is_set(field))


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses duplicate keys, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the field {key.value!r} is written twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _yaml_fault(error: Exception) -> str:
    return " ".join(str(error).replace('"<unicode string>", ', "").split()).rstrip(".")


def _kind_of(document: object) -> str:
    return "nothing" if document is None else "a list" if isinstance(document, list) else "a plain value"
