"""The ``ModelPortfolio`` resource, and the models of its ``spec`` and ``spec.repository``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgefolio.specification.cluster import JobSpecification, ObjectName, Rollout, SecretReference
from edgefolio.specification.conditions import Sha256
from edgefolio.specification.making import DataSpecification, GivenUri, Methods, Selection, Source
from edgefolio.specification.objectives import ObjectiveOverride, ObjectivesSpecification
from edgefolio.specification.profiling import Profiling
from edgefolio.specification.serving import Serving, Switching
from edgefolio.specification.validation.base import Specification
from edgefolio.specification.validation.cel import list_map, rules

API_VERSION = "edgefolio.dev/v1alpha1"


#: ed25519 public key in minisign's format: base64 of algorithm, key number and key.
VerificationKeyText = Annotated[str, Field(pattern=r"^RW[A-Za-z0-9+/]{54}$", max_length=56)]


class RepositorySpecification(Specification):
    """Where revisions are published and read: a directory (command line only) or an object store."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.uri.matches('^(s3|https|pvc)://.')", "uri must begin with s3://, https:// or pvc://"),
            ("self.uri == oldSelf.uri", "uri cannot be changed: make another ModelPortfolio"),
        )
    )

    uri: GivenUri
    """Object store, or a directory on the command line."""
    secret_ref: SecretReference | None = None
    """Credentials of the object store: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL and the like; for
    https EDGEFOLIO_NETRC, with lines "machine HOST login USER password PASSWORD"."""
    read_secret_ref: SecretReference | None = None
    """Credentials that only read, for the agents on the nodes and the Job that checks the repository. Absent:
    secretRef, which lets a compromised node write to the repository."""
    reclaim_policy: Literal["Retain", "Delete"] = "Retain"
    """What becomes of the published revisions when the resource is deleted."""
    check_interval_seconds: Annotated[int, Field(ge=30, le=86_400)] = 300
    """Without source: how often the repository is asked for a newer revision."""
    manifest_digest: Sha256 | None = None
    """Without source: serve the revision whose manifest has this sha256 and no other, whatever is newer. Whoever
    publishes hands it over on a way of its own, in Git as a rule. Absent: the digest that a revision is first seen with
    is kept."""
    verification_key: VerificationKeyText | None = None
    """Public key of the publisher, the line of a .pub file that begins with RW (minisign, ed25519): a revision whose
    manifest it has not signed is refused. With source the Job signs, with EDGEFOLIO_SIGNING_KEY of secretRef."""

    @property
    def reading_secret(self) -> SecretReference | None:
        """The Secret of those who only read."""
        return self.read_secret_ref or self.secret_ref


_NOTHING_OF_OTHERS = "reclaimPolicy Delete needs source: what others published is not deleted"
_DIGEST_FOR_FOLLOWING = (
    "repository.manifestDigest names the one revision to follow: leave out source and pinnedRevision"
)
_TRAINING_CLASSIFIES = "methods.sparseTraining trains classifiers only: leave it out, and give source.weightsURI"
_RECALL_OF_CLASSES = "selection.minClassRecallPercent is of classes: leave it out for this data.task"
_AT_MOST_SIXTEEN = "selection.maxVariants and maxSplits (2 where it is absent) are at most 16 together"
_PIECES_NEED = "job.parallelism above 1 needs source.weightsURI, methods.oneShot and job.workDirectory.uri"


class PortfolioSpecification(Specification):
    """The ``spec`` of a ModelPortfolio. Without ``source`` it follows what others publish in the repository."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("!has(self.source) || has(self.data)", "data is needed to make variants of source"),
            (
                "!has(self.source) || has(self.methods.sparseTraining) || has(self.methods.oneShot)",
                "methods needs sparseTraining or oneShot (or both)",
            ),
            (
                "!has(self.source) || has(self.source.weightsURI) || has(self.source.modelURI)"
                " || has(self.methods.sparseTraining)",
                "source has no weightsURI, so methods.sparseTraining is needed to train it",
            ),
            (
                "!has(self.source) || !self.repository.uri.startsWith('https:')",
                "nothing can be published at https://: use s3:// or pvc://, or follow it without source",
            ),
            (
                "has(self.source) || self.repository.reclaimPolicy != 'Delete'",
                _NOTHING_OF_OTHERS,
            ),
            (
                "!has(self.repository.manifestDigest) || (!has(self.source) && self.pinnedRevision == 0)",
                _DIGEST_FOR_FOLLOWING,
            ),
            (
                "!has(self.job.parallelism) || self.job.parallelism == 1 || (has(self.source) "
                "&& (has(self.source.weightsURI) || has(self.source.modelURI)) && has(self.methods.oneShot) "
                "&& has(self.job.workDirectory) && has(self.job.workDirectory.uri))",
                _PIECES_NEED,
            ),
            (
                "!has(self.data) || self.data.task == 'Classification' || !has(self.methods.sparseTraining)",
                _TRAINING_CLASSIFIES,
            ),
            (
                "!has(self.data) || self.data.task == 'Classification' || !has(self.selection.minClassRecallPercent)",
                _RECALL_OF_CLASSES,
            ),
            (
                "!has(self.methods.split) || self.methods.split.size() == 0 || self.selection.maxVariants "
                "+ (has(self.selection.maxSplits) ? self.selection.maxSplits : 2) <= 16",
                _AT_MOST_SIXTEEN,
            ),
        )
    )

    source: Source | None = None
    """The model; absent: follow what others publish in the repository."""
    data: DataSpecification | None = None
    """The samples."""
    methods: Methods = Methods()
    """The routes to variants."""
    selection: Selection = Selection()
    """Which candidates become variants."""
    profiling: Profiling = Profiling()
    """How candidates are measured."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Seed of everything random."""
    repository: RepositorySpecification
    """Where revisions are published and read."""
    serving: Serving
    """What serves the variants."""
    objectives: ObjectivesSpecification = ObjectivesSpecification()
    """What is asked of every endpoint."""
    objective_overrides: Annotated[
        tuple[ObjectiveOverride, ...], Field(max_length=32, json_schema_extra=list_map("name"))
    ] = ()
    """What is asked on certain nodes; the first entry that matches counts."""
    switching: Switching = Switching()
    """When an endpoint changes its variant."""
    job: JobSpecification = JobSpecification()
    """The Job that makes a revision."""
    rollout: Rollout = Rollout()
    """How a new revision reaches the endpoints."""
    revision_history_limit: Annotated[int, Field(ge=1, le=20)] = 3
    """Revisions that are kept."""
    pinned_revision: Annotated[int, Field(ge=0, le=2**24)] = 0
    """Serve this revision, whatever is newer; 0: the newest."""

    @model_validator(mode="after")
    def _overrides_have_names_of_their_own(self) -> PortfolioSpecification:
        names = [entry.name for entry in self.objective_overrides]
        if len(set(names)) != len(names):
            raise ValueError("objectiveOverrides holds a name twice")
        return self

    @model_validator(mode="after")
    def _run_is_complete(self) -> PortfolioSpecification:
        if self.source is None:
            if self.repository.reclaim_policy == "Delete":
                raise ValueError(_NOTHING_OF_OTHERS)
            return self
        if self.data is None:
            raise ValueError("data is needed to make variants of source: name at least data.trainingURI")
        if self.methods.sparse_training is None and self.methods.one_shot is None:
            raise ValueError("methods needs sparseTraining or oneShot (or both)")
        if not self.source.is_trained and self.methods.sparse_training is None:
            raise ValueError("source has no weightsURI, so methods.sparseTraining is needed to train it")
        return self

    @model_validator(mode="after")
    def _other_tasks_are_not_trained(self) -> PortfolioSpecification:
        if self.data is None or self.data.task == "Classification":
            return self
        if self.methods.sparse_training is not None:
            raise ValueError(_TRAINING_CLASSIFIES)
        if self.selection.min_class_recall_percent is not None:
            raise ValueError(_RECALL_OF_CLASSES)
        return self

    @model_validator(mode="after")
    def _manifest_holds_all(self) -> PortfolioSpecification:
        if self.methods.split and self.selection.max_variants + self.selection.max_splits > 16:
            raise ValueError(_AT_MOST_SIXTEEN)
        return self

    @model_validator(mode="after")
    def _pieces_can_be_made_apart(self) -> PortfolioSpecification:
        if self.repository.manifest_digest is not None and (self.source is not None or self.pinned_revision):
            raise ValueError(_DIGEST_FOR_FOLLOWING)
        if self.job.parallelism == 1:
            return self
        given = self.source is not None and self.source.is_trained
        work = self.job.work_directory
        if not (given and self.methods.one_shot is not None and work is not None and work.uri is not None):
            raise ValueError(_PIECES_NEED)
        return self


class ObjectMeta(BaseModel):
    """The part of Kubernetes' metadata that is read here; the rest is kept as it is."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: ObjectName
    namespace: str | None = None


class ModelPortfolio(BaseModel):
    """A ModelPortfolio: the same file for ``edgefolio make -f`` and ``kubectl apply -f``."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    api_version: Annotated[Literal["edgefolio.dev/v1alpha1"], Field(alias="apiVersion")]
    kind: Literal["ModelPortfolio"]
    metadata: ObjectMeta
    spec: PortfolioSpecification
    status: dict[str, Any] | None = None
