"""Profiler of a published revision on this machine: fetched, verified, measured; the result is a profile of its class.

The files are strangers' as far as this module knows: each is compared with its digest and checked before a runtime
opens it. A run that was stopped keeps what it fetched, in its work directory, and measures anew.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime
import psutil

from edgefolio import __version__
from edgefolio.errors import IntegrityError, TransientError, UserError
from edgefolio.manifest import Manifest
from edgefolio.node_profile import (
    MeasuredEnvironment,
    MeasuredLatency,
    MeasuredVariant,
    NodeProfile,
    PublishedProfile,
)
from edgefolio.processor import this_processor
from edgefolio.repository import Repository, layout
from edgefolio.repository.layout import MAXIMUM_SIGNATURE_BYTES
from edgefolio.repository.profiles import published_profile
from edgefolio.untrusted.model_file import check_onnx_file
from edgefolio_pruner.profiling.environment import describe_environment
from edgefolio_pruner.profiling.measure import MeasuredProfile, measure_variants
from edgefolio_pruner.progress import Progress, no_progress

if TYPE_CHECKING:
    from edgefolio.repository.signature import SigningKey

#: A machine whose processors others use more than this is refused.
MOST_BUSY_PERCENT = 20.0
#: Rounds that differ by more than this say that something else ran meanwhile.
WIDE_SPREAD_PERCENT = 25.0
#: For so long the processors are watched before the measurement.
_SECONDS_WATCHED = 1.0
_STAGE = "fetch"


@dataclass(frozen=True, kw_only=True)
class RevisionToProfile:
    """A published revision, and the digest of its manifest."""

    manifest: Manifest
    manifest_sha256: str

    @classmethod
    def current(cls, repository: Repository, model: str) -> RevisionToProfile:
        """The revision that readers take. Raises as :meth:`Repository.current_manifest`."""
        pointer, manifest = repository.current_manifest(model)
        return cls(manifest=manifest, manifest_sha256=pointer.manifest_sha256)

    @classmethod
    def numbered(
        cls, repository: Repository, model: str, revision: int, *, sha256: str | None = None
    ) -> RevisionToProfile:
        """The revision with this number. Raises as :meth:`Repository.published_manifest`."""
        published = repository.published_manifest(model, revision, sha256=sha256)
        return cls(manifest=published.manifest, manifest_sha256=published.sha256)

    @property
    def threads(self) -> int:
        """The threads that its variants were measured with when it was made."""
        return self.manifest.variants[0].profiles[0].environment.threads


def profile_there(
    repository: Repository, wanted: RevisionToProfile, *, threads: int, signing_key: SigningKey | None = None
) -> tuple[PublishedProfile | None, str | None]:
    """The profile of this machine's class that is there already, taken with as many threads; else why it is replaced.

    Neither where there is none. With a ``signing_key`` it must be signed with that: a writer may have been stopped
    between profile and signature.
    """
    if signing_key is not None:
        repository = Repository(repository.storage, verification_key=signing_key.verification_key)
    name = this_processor().class_name
    try:
        found = published_profile(repository, wanted.manifest, name, manifest_sha256=wanted.manifest_sha256)
    except IntegrityError as error:
        return None, f"the profile that is there cannot be used: {error.problem}"
    if found is None:
        return None, None
    if found.profile.environment.threads != threads:
        return None, f"the profile that is there was taken with {found.profile.environment.threads} threads."
    return found, None


def require_publishable(repository: Repository, manifest: Manifest, *, signing_key: SigningKey | None) -> None:
    """Raise :class:`UserError` unless a profile of ``manifest`` can be written there, and those who read take it."""
    if not repository.storage.can_publish:
        raise UserError(
            "profiles can be read from here, but not written to it.",
            field=repository.storage.field,
            value=repository.uri,
            remedy="Write it to a file with --output, and put that beside the manifest where the place is written.",
        )
    path = layout.signature_path(manifest.model, manifest.revision)
    if signing_key is None and repository.storage.read(path, maximum_bytes=MAXIMUM_SIGNATURE_BYTES) is not None:
        raise UserError(
            "the revision is signed: those who read with its key would not take a profile without a signature.",
            field="--sign",
            remedy="Name the secret key that signs the revisions (in a cluster EDGEFOLIO_SIGNING_KEY of secretRef), "
            "or write the profile to a file with --output.",
        )


def was_busy(profile: NodeProfile) -> bool:
    """Whether others used the machine, before or while it was measured."""
    return profile.busy_percent > MOST_BUSY_PERCENT or profile.spread_percent > WIDE_SPREAD_PERCENT


def busy_percent() -> float:
    """Share of this machine's processors that is used now, while this process sleeps."""
    return min(100.0, max(0.0, psutil.cpu_percent(interval=_SECONDS_WATCHED)))


def require_idle(busy: float) -> None:
    """Raise :class:`TransientError` if others use this machine."""
    if busy > MOST_BUSY_PERCENT:
        raise TransientError(
            f"others use {busy:.0f} % of its processors, and latencies measured now would be theirs as well.",
            field="this machine",
            remedy="Stop what runs, or measure all the same with --allow-busy: the profile says so.",
        )


def profile_revision(
    repository: Repository,
    wanted: RevisionToProfile,
    *,
    threads: int,
    samples: int,
    rounds: int,
    work_directory: Path,
    busy: float,
    progress: Progress = no_progress,
) -> NodeProfile:
    """Measure all variants of ``wanted`` that one node serves; ``busy`` is what :func:`busy_percent` said before.

    Raises :class:`UserError` or :class:`IntegrityError` if they cannot be fetched, verified or run.
    """
    manifest = wanted.manifest
    shapes = _input_shapes(manifest)
    files: dict[str, Path] = {}
    for position, variant in enumerate(manifest.single_node):
        progress(stage=_STAGE, fraction=position / len(manifest.single_node), message=variant.name)
        path = repository.fetch(manifest, variant, work_directory / variant.sha256 / "model.onnx")
        check_onnx_file(path, location=repository.location(layout.variant_path(manifest.model, variant.file)))
        files[variant.name] = path
    progress(stage=_STAGE, fraction=1.0, message=f"{len(files)} variants, verified")
    measured = measure_variants(
        files,
        input_shapes=shapes,
        batch_sizes=_batch_sizes(manifest),
        threads=threads,
        samples=samples,
        rounds=rounds,
        progress=progress,
    )
    profile = _profile(wanted, measured, threads=threads, busy=busy)
    progress(stage="profile", fraction=1.0, message=f"{len(files)} variants on {profile.environment.cpu_model}")
    for path in files.values():
        shutil.rmtree(path.parent, ignore_errors=True)
    return profile


def _profile(
    wanted: RevisionToProfile, measured: Mapping[str, MeasuredProfile], *, threads: int, busy: float
) -> NodeProfile:
    manifest = wanted.manifest
    environment = MeasuredEnvironment.model_validate(
        describe_environment(threads=threads, onnxruntime_version=str(onnxruntime.__version__)).model_dump()
    )
    return NodeProfile(
        model=manifest.model,
        revision=manifest.revision,
        manifest_sha256=wanted.manifest_sha256,
        class_name=environment.class_name,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        edgefolio_version=__version__,
        environment=environment,
        busy_percent=round(busy, 1),
        variants=tuple(
            MeasuredVariant(
                name=variant.name,
                sha256=variant.sha256,
                latencies=tuple(
                    MeasuredLatency.model_validate(entry.model_dump())
                    for entry in measured[variant.name].profile.latencies
                ),
                load_milliseconds=measured[variant.name].profile.load_milliseconds,
                memory_peak_bytes=measured[variant.name].profile.memory_peak_bytes,
                memory_steady_bytes=measured[variant.name].profile.memory_steady_bytes,
                spread_percent=round(measured[variant.name].spread_percent, 1),
            )
            for variant in manifest.single_node
        ),
    )


def _input_shapes(manifest: Manifest) -> dict[str, Sequence[int]]:
    """Shapes of the inputs without the batch, those of the probe where the signature leaves a size open."""
    other = next((tensor for tensor in manifest.signature.inputs if tensor.datatype != "FP32"), None)
    if other is not None:
        raise UserError(
            f"its input {other.name!r} is of type {other.datatype}, and only FP32 can be measured.",
            field="--model",
            value=manifest.model,
            remedy="Serve it with the manifest's own profile.",
        )
    return {tensor.name: tensor.shape[1:] for tensor in manifest.variants[0].probe.inputs}


def _batch_sizes(manifest: Manifest) -> tuple[int, ...]:
    """The batches that its variants were measured with when it was made."""
    return tuple(dict.fromkeys(entry.batch_size for entry in manifest.variants[0].profiles[0].latencies))
