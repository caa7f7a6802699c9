"""Read a ModelPortfolio from YAML; turn every mistake into one error that names the field and the remedy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from edgefolio.errors import UserError
from edgefolio.specification.resource import API_VERSION, ModelPortfolio

#: Fields that only a cluster reads; on one machine they are ignored, with a note.
CLUSTER_FIELDS = ("job", "rollout", "objectiveOverrides", "serving.managed", "serving.adopt", "repository.secretRef")


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
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(
            f"it is no valid YAML: {' '.join(str(error).split())}.", field="-f", value=name, remedy="Mend the file."
        ) from error
    if not isinstance(document, Mapping) or document.get("kind") != "ModelPortfolio":
        kind = document.get("kind") if isinstance(document, Mapping) else type(document).__name__
        raise UserError(
            "the document is not a ModelPortfolio.",
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
        raise _first_mistake(error, document) from error


def ignored_on_one_machine(portfolio: ModelPortfolio) -> tuple[str, ...]:
    """Fields (``spec.job``, ...) that are set but that only a cluster reads."""
    written = portfolio.spec.model_dump(by_alias=True, exclude_unset=True, mode="json")

    def is_set(dotted: str) -> bool:
        value: Any = written
        for part in dotted.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return bool(value)

    return tuple(f"spec.{field}" for field in CLUSTER_FIELDS if is_set(field))


def _first_mistake(error: ValidationError, document: Mapping[str, Any]) -> UserError:
    mistakes = error.errors(include_url=False)
    first = mistakes[0]
    field = ".".join(str(part) for part in first["loc"]) or "spec"
    more = f" ({len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    remedies = {
        "missing": "Add the field.",
        "extra_forbidden": "Remove it, or correct its spelling.",
    }
    value = None if first["type"] == "missing" else _value_at(document, first["loc"])
    return UserError(
        f"{message}{more}.",
        field=field,
        value=value,
        remedy=remedies.get(first["type"], "Correct the value."),
    )


def _value_at(document: Any, location: tuple[int | str, ...]) -> Any:
    for part in location:
        if isinstance(document, Mapping) and part in document:
            document = document[part]
        elif isinstance(document, list) and isinstance(part, int) and part < len(document):
            document = document[part]
        else:
            return None
    return document if not isinstance(document, Mapping | list) else None
