"""The ``ModelPortfolio`` resource as a whole."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgefolio.specification.base import Specification
from edgefolio.specification.making import DataSpecification, Methods, Profiling, Selection, Source, Uri
from edgefolio.specification.objectives import ObjectiveOverride, ObjectivesSpecification
from edgefolio.specification.serving import Serving, Switching

API_VERSION = "edgefolio.dev/v1alpha1"


class RepositorySpecification(Specification):
    """Where revisions are published and read: a directory (command line only) or an object store."""

    uri: Uri
    secret_ref: dict[str, str] | None = None
    reclaim_policy: Literal["Retain", "Delete"] = "Retain"


class PortfolioSpecification(Specification):
    """The ``spec`` of a ModelPortfolio. Without ``source`` it follows what others publish in the repository."""

    source: Source | None = None
    data: DataSpecification | None = None
    methods: Methods = Methods()
    selection: Selection = Selection()
    profiling: Profiling = Profiling()
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    repository: RepositorySpecification
    serving: Serving
    objectives: ObjectivesSpecification = ObjectivesSpecification()
    objective_overrides: Annotated[tuple[ObjectiveOverride, ...], Field(max_length=32)] = ()
    switching: Switching = Switching()
    job: dict[str, Any] = {}
    rollout: dict[str, Any] = {}
    revision_history_limit: Annotated[int, Field(ge=1, le=20)] = 3
    pinned_revision: Annotated[int, Field(ge=0, le=2**24)] = 0

    @model_validator(mode="after")
    def _making_is_complete(self) -> PortfolioSpecification:
        if self.source is None:
            return self
        if self.data is None:
            raise ValueError("data is needed to make variants of source: name at least data.trainingURI")
        if self.methods.sparse_training is None and self.methods.one_shot is None:
            raise ValueError("methods needs sparseTraining or oneShot (or both)")
        if self.source.weights_uri is None and self.methods.sparse_training is None:
            raise ValueError("source has no weightsURI, so methods.sparseTraining is needed to train it")
        return self


class ObjectMeta(BaseModel):
    """The part of Kubernetes' metadata that is read here; the rest is kept as it is."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", max_length=253)]
    namespace: str | None = None


class ModelPortfolio(BaseModel):
    """A ModelPortfolio: the same file for ``edgefolio make -f`` and ``kubectl apply -f``."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    api_version: Annotated[Literal["edgefolio.dev/v1alpha1"], Field(alias="apiVersion")]
    kind: Literal["ModelPortfolio"]
    metadata: ObjectMeta
    spec: PortfolioSpecification
    status: dict[str, Any] | None = None
