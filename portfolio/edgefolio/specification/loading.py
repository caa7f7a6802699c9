"""Loader of ModelPortfolios from YAML; every mistake becomes one error that names the field and the remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgefolio.errors import UserError
from edgefolio.specification.resource import API_VERSION, ModelPortfolio
from edgefolio.specification.validation.base import resource_name
from edgefolio.specification.validation.validation_errors import first_mistake
from edgefolio.untrusted.yaml_document import LARGEST_BYTES, load_yaml
from edgefolio.uris import problem_in_uri, secret_in_uri

#: Fields that only a cluster reads; on one machine they are ignored, with a note.
CLUSTER_FIELDS = (
    "job",
    "rollout",
    "objectiveOverrides",
    "profiling.nodeSelectors",
    "serving.http",
    "serving.managed",
    "serving.adopt",
    "repository.secretRef",
    "repository.readSecretRef",
    "repository.checkIntervalSeconds",
    "repository.manifestDigest",
)


def load_portfolio(path: Path) -> ModelPortfolio:
    """The ModelPortfolio in the file ``path``, written by a user.

    Raises :class:`UserError` for anything that is not one, and for URIs that are unsafe or hold credentials.
    """
    portfolio = load_stored_portfolio(path)
    for field, uri in uris_of(portfolio):
        problem = problem_in_uri(uri) or secret_in_uri(uri)
        if problem is not None:
            raise UserError(f"{problem.problem}.", field=field, value=uri, remedy=problem.remedy)
    return portfolio


def uris_of(portfolio: ModelPortfolio) -> Iterator[tuple[str, str]]:
    """Path and value of each URI that is set in ``portfolio``."""
    spec = portfolio.spec
    yield "spec.repository.uri", spec.repository.uri
    if spec.source is not None and spec.source.weights_uri is not None:
        yield "spec.source.weightsURI", spec.source.weights_uri
    if spec.source is not None and spec.source.model_uri is not None:
        yield "spec.source.modelURI", spec.source.model_uri
    if spec.data is not None:
        for name in ("training_uri", "validation_uri", "test_uri"):
            uri = getattr(spec.data, name)
            if uri is not None:
                yield f"spec.data.{resource_name(name)}", uri
    if spec.job.work_directory is not None and spec.job.work_directory.uri is not None:
        yield "spec.job.workDirectory.uri", spec.job.work_directory.uri


def load_stored_portfolio(path: Path) -> ModelPortfolio:
    """The ModelPortfolio in the file ``path``, a copy of one in a cluster, where other checks let it in.

    One from before these checks may hold URIs with credentials. Raises :class:`UserError` for anything that is none.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, f"the file cannot be read ({error.__class__.__name__})") from error
    if len(raw) > LARGEST_BYTES:
        raise _unreadable(path, f"the file is larger than {LARGEST_BYTES} bytes")
    try:
        return parse_portfolio(raw.decode("utf-8"), name=str(path))
    except UnicodeDecodeError as error:
        raise _unreadable(path, "the file cannot be read: it is not UTF-8 text") from error


def parse_portfolio(text: str, *, name: str = "text") -> ModelPortfolio:
    """The ModelPortfolio that ``text`` (YAML, one document) describes; ``name`` stands in errors."""
    try:
        document = load_yaml(text)
    except ValueError as error:
        raise UserError(f"it is no valid YAML: {error}.", field="-f", value=name, remedy="Mend the file.") from error
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


def _unreadable(path: Path, problem: str) -> UserError:
    return UserError(
        f"{problem}.", field="-f", value=path, remedy="Name a YAML file in UTF-8 that holds a ModelPortfolio."
    )


def _kind_of(document: object) -> str:
    return "nothing" if document is None else "a list" if isinstance(document, list) else "a plain value"
