"""Cluster-only settings: where pods run, their resources, how a new revision is rolled out.

On one machine these fields are read and checked, and then ignored with a note. Pod settings are a chosen few, not an
embedded pod template: a template's schema is hundreds of kilobytes, and its fields would belong to nobody.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from edgefolio.specification.making import SAFE_URI_RULES
from edgefolio.specification.validation.base import ByteQuantity, Specification
from edgefolio.specification.validation.cel import list_map, rules

OBJECT_NAME = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
#: Name of a namespaced object.
ObjectName = Annotated[str, Field(pattern=OBJECT_NAME, max_length=253)]
LabelKey = Annotated[
    str, Field(pattern=r"^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$", max_length=317)
]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$", max_length=63)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=16)]
ImageName = Annotated[str, Field(min_length=1, max_length=512)]
PullPolicy = Literal["Always", "IfNotPresent", "Never"]

_QUANTITY = r"^[0-9]{1,12}(\.[0-9]{1,9})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"


def _quantity_text(value: object) -> object:
    # `cpu: 2` and `cpu: 0.5` are as usual in manifests as `cpu: "2"`.
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


#: A Kubernetes quantity: 500m, 2, 1.5Gi.
Quantity = Annotated[
    str,
    BeforeValidator(_quantity_text),
    Field(pattern=_QUANTITY, max_length=32),
    WithJsonSchema({"type": "string", "pattern": _QUANTITY, "maxLength": 32, "x-kubernetes-int-or-string": True}),
]
Quantities = Annotated[dict[LabelKey, Quantity], Field(max_length=8)]


class SecretReference(Specification):
    """A Secret in the same namespace."""

    name: ObjectName
    """Its name."""


class Resources(Specification):
    """What a container asks for and may take, as in a pod."""

    requests: Quantities = {}
    """Reserved on the node: {cpu: 500m, memory: 256Mi}."""
    limits: Quantities = {}
    """Never exceeded. The memory limit is what a switch must fit into."""


class Toleration(Specification):
    """A taint of nodes that these pods accept, as in a pod."""

    key: LabelKey | None = None
    """Key of the taint; absent with operator Exists: every taint."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Exists ignores the value."""
    value: LabelValue | None = None
    """Value of the taint, for operator Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; absent: all of them."""
    toleration_seconds: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    """With NoExecute: how long the pod stays."""


class PodSettings(Specification):
    """Where pods run and how their images are had."""

    image_pull_policy: PullPolicy = "IfNotPresent"
    """When images are pulled."""
    image_pull_secrets: Annotated[
        tuple[SecretReference, ...], Field(max_length=8, json_schema_extra=list_map("name"))
    ] = ()
    """Secrets for the image registry."""
    node_selector: Labels = {}
    """Labels that a node must carry."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] = ()
    """Taints that are accepted."""
    priority_class_name: ObjectName | None = None
    """Priority of the pods."""


#: An absolute path without steps back.
HostPath = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+$", max_length=253)]


class Storage(Specification):
    """The agent's volume on each node: last good variants, target, objectives and history."""

    size_limit: ByteQuantity = "2Gi"
    """Never more than this is kept on a node. A new revision must fit beside the one that serves, or it is refused."""
    host_path: HostPath | None = None
    """A directory of the node instead of a volume of the pod: what is in it outlives the pod, so that the next one
    serves without the repository. It must hold two directories, models and state, that user 65532 can write to; each
    portfolio needs one of its own, in a namespace whose pod security allows hostPath, and below one that the chart's
    rbac.hostPaths names. sizeLimit is kept by the agent alone."""
    max_bytes_per_second: Annotated[int, Field(ge=1024, le=2**40)] | None = None
    """Speed limit of fetching variants; absent: none."""


class ManagedServing(PodSettings):
    """Triton servers that Edgefolio runs itself: one pod on each chosen node."""

    image: ImageName | None = None
    """Image of Triton; absent: the one the operator was installed with."""
    agent_image: ImageName | None = None
    """Image of the agent beside it; absent: the one the operator was installed with."""
    resources: Resources = Resources()
    """Of Triton."""
    shared_memory: ByteQuantity | None = None
    """Limit of Triton's shared memory, through which a Python backend gets requests; what is used of it counts against
    Triton's memory limit. Absent: a quarter of that limit and at least 64Mi, or 512Mi without a limit. Batches are
    bounded so that those of two variants fit."""
    agent_resources: Resources = Resources()
    """Of the agent; requests that are absent: 25m and 128Mi, or its limits. Without a memory request
    it may take 512Mi."""
    storage: Storage = Storage()
    """The agent's volume."""


class PodSelector(Specification):
    """Pods by their labels."""

    match_labels: Annotated[dict[LabelKey, LabelValue], Field(min_length=1, max_length=16)]
    """Labels that a pod must carry, all of them."""


class AdoptServing(Specification):
    """Triton servers that run already, with the agent added to their pods."""

    selector: PodSelector
    """Which pods are adopted."""


_ONE_PLACE = "workDirectory needs either claimName or uri"


class WorkDirectory(Specification):
    """Where an interrupted pruning run finds its checkpoints again: on a volume, or in an object store."""

    model_config = ConfigDict(json_schema_extra=rules(("has(self.claimName) != has(self.uri)", _ONE_PLACE)))

    claim_name: ObjectName | None = None
    """A PersistentVolumeClaim in the same namespace: a Job goes on wherever the volume can be mounted."""
    uri: Annotated[str, Field(pattern=r"^s3://[^/]", max_length=1024, json_schema_extra=SAFE_URI_RULES)] | None = None
    """A place in an object store, with the credentials of repository.secretRef: a Job goes on on any node. Each
    portfolio has a folder of its own below it, namespace/name."""

    @model_validator(mode="after")
    def _is_one_place(self) -> WorkDirectory:
        if (self.claim_name is None) == (self.uri is None):
            raise ValueError(_ONE_PLACE)
        return self


#: Mount paths that hide what the Job runs from or writes to: its files and home, its interpreter and system, a token of
#: the API server; a folder above one of them; and ``.`` or ``..``, which lead anywhere. RE2 reads it, too.
_PRODUCT_PATHS = (
    r"^/+((bin|boot|claims|dev|etc|lib|lib32|lib64|libx32|models|proc|root|run|sbin|state|sys|tmp|usr|work)(/.*)?"
    r"|opt/*|opt/+(edgefolio|tools|tritonserver)(/.*)?|var/*|var/+(run|tmp)(/.*)?)?$|/[.][.]?(/|$)"
)
_MOUNT_ELSEWHERE = (
    "mountPath hides files of the product or of its system: mount at a folder of your own, such as /data or "
    "/opt/libraries"
)
#: Variables by which the Job, its interpreter or its loader find what they run.
_PRODUCT_VARIABLES = (
    r"^(HOME|PATH|ENV|BASH_ENV|IFS|HOSTNAME|POD_NAME|POD_NAMESPACE|JOB_COMPLETION_INDEX|GCONV_PATH|LOCPATH"
    r"|(EDGEFOLIO|PYTHON|LD|GLIBC|KUBERNETES)(_.*)?|PYTHON.+)$"
)
_VARIABLE_OF_OUR_OWN = (
    "this variable is set by the product, or decides which code it runs: remove it (an image of your own, job.image, "
    "can hold what it was for)"
)


class VolumeMount(Specification):
    """A PersistentVolumeClaim that the Job's container sees."""

    model_config = ConfigDict(
        json_schema_extra=rules((f"!self.mountPath.matches('{_PRODUCT_PATHS}')", _MOUNT_ELSEWHERE))
    )

    claim_name: ObjectName
    """The PersistentVolumeClaim, in the same namespace."""
    mount_path: Annotated[str, Field(pattern=r"^/[A-Za-z0-9_./-]*$", max_length=255)]
    """Where it appears in the container: not over the product's own files, and each path once."""
    read_only: bool = True
    """Whether writing is refused."""

    @field_validator("mount_path")
    @classmethod
    def _hides_nothing(cls, path: str) -> str:
        if re.search(_PRODUCT_PATHS, path):
            raise ValueError(_MOUNT_ELSEWHERE)
        return path


class EnvironmentVariable(Specification):
    """One variable of the Job's container."""

    model_config = ConfigDict(
        json_schema_extra=rules((f"!self.name.matches('{_PRODUCT_VARIABLES}')", _VARIABLE_OF_OUR_OWN))
    )

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
    """Its name."""
    value: Annotated[str, Field(max_length=1024)] = ""
    """Its value. Secrets belong into repository.secretRef, not here."""

    @field_validator("name")
    @classmethod
    def _is_a_user_s(cls, name: str) -> str:
        if re.search(_PRODUCT_VARIABLES, name):
            raise ValueError(_VARIABLE_OF_OUR_OWN)
        return name


class JobSpecification(PodSettings):
    """How the Job runs: its image, place, resources and attempts."""

    image: ImageName | None = None
    """Image of the pruner; absent: the one the operator was installed with."""
    resources: Resources = Resources()
    """Of its container."""
    parallelism: Annotated[int, Field(ge=1, le=32)] = 1
    """Pods that work at the same time, each on pieces that need nothing of each other: the ratios of oneShot, and
    sparseTraining. One more Job then puts the pieces together and publishes. More than one needs given weights, and a
    work directory in an object store, where the pods leave what they made."""
    suspend: bool = False
    """Hold the Job: its pods are removed, its progress stays."""
    backoff_limit: Annotated[int, Field(ge=0, le=100)] = 3
    """Failures of the infrastructure that are retried; bad input fails at once."""
    active_deadline_seconds: Annotated[int, Field(ge=60, le=31_536_000)] | None = None
    """Longest time a pruning run may take; absent: any."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] = 86_400
    """How long a finished Job stays to be looked at, at least a minute. Its outcome is kept in the status."""
    work_directory: WorkDirectory | None = None
    """Checkpoints; absent: they are lost with the pod."""
    volumes: Annotated[tuple[VolumeMount, ...], Field(max_length=8, json_schema_extra=list_map("mountPath"))] = ()
    """More volumes; claims named by a pvc:// URI are mounted without being listed here."""
    env: Annotated[tuple[EnvironmentVariable, ...], Field(max_length=32, json_schema_extra=list_map("name"))] = ()
    """More variables of its container; not those by which the product finds its files and its code."""

    @model_validator(mode="after")
    def _names_things_once(self) -> JobSpecification:
        paths = [re.sub("/+", "/", entry.mount_path).rstrip("/") for entry in self.volumes]
        names = [entry.name for entry in self.env]
        if len(set(paths)) != len(paths):
            raise ValueError("volumes holds a mountPath twice: name each path once")
        if len(set(names)) != len(names):
            raise ValueError("env holds a name twice: name each variable once")
        return self


class Rollout(Specification):
    """How a new revision reaches the endpoints: in waves, each watched before the next."""

    max_concurrent_percent: Annotated[int, Field(ge=1, le=100)] = 25
    """Part of the endpoints that one wave takes, at least one."""
    analysis_seconds: Annotated[int, Field(ge=0, le=86_400)] = 120
    """How long a wave must hold its objectives before the next begins."""
    failure_percent: Annotated[int, Field(ge=1, le=100)] = 20
    """Part of a wave that must fail before the revision is rolled back: at least two endpoints, or one that fails twice
    in a wave of one.
    Fewer are left on the revision before, and the rollout goes on."""
    on_failure: Literal["Rollback", "Pause"] = "Rollback"
    """Rollback puts all endpoints back to the revision before, and tries the new one again after growing pauses; Pause
    stops where it is."""
    approval: Literal["Automatic", "Manual"] = "Automatic"
    """Manual: a new revision waits until the annotation edgefolio.dev/approve-revision holds its number."""
