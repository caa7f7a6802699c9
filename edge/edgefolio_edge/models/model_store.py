"""Model store: Triton's model repository on local disk, filled with verified bytes of self-contained models only.

    <root>/models/<model>/config.pbtxt            generated from the manifest
    <root>/models/<model>/<version>/model.onnx    verified, then renamed into place as a whole directory
    <root>/models/<model>/<version>/probe.json    what the backend compares while it loads
    <root>/models/<model>/<version>/plan.json     of a split, its shard and worker.json beside it (:mod:`.split_folder`)
    <root>/revisions/<model>/                     the manifests (:mod:`.kept_manifests`)
    <root>/incoming/                              transfers that are under way or were interrupted

A version's directory is immutable once named: Triton would take a changed file for a new model.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from edgefolio.errors import IntegrityError
from edgefolio.files import fsync_folder, make_folder, write_durably, writing
from edgefolio.manifest import VERSIONS_PER_REVISION, Manifest, Variant
from edgefolio.repository import Repository, layout
from edgefolio.repository.fetching import digest_of_file
from edgefolio.shared_memory import largest_batch
from edgefolio.untrusted.model_file import check_onnx_file
from edgefolio_edge.models.kept_manifests import FIELD, KeptManifests
from edgefolio_edge.models.probe import backend_probe
from edgefolio_edge.models.split_folder import check_segments, folder_problem, worker_member
from edgefolio_edge.models.triton_configuration import as_text, configuration_of, is_text_of
from edgefolio_worker.records import member_file

_BLOCK_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """Digest of a verified file; with another size, time or inode it is verified again."""

    sha256: str
    signature: tuple[int, int, int]


class ModelStore:
    """Local copies of the variants that one server serves. One process writes them, Triton reads them.

    Splits are left in the repository, unless this machine is one of their workers: then it has its own shards
    (:mod:`.split_folder`).
    """

    def __init__(
        self,
        root: Path,
        *,
        model: str,
        threads: int = 1,
        model_repository: Path | None = None,
        shared_memory_bytes: int | None = None,
        worker_rank: int | None = None,
    ) -> None:
        """``model`` is its name in the repository and for clients. ``worker_rank`` is that of this machine in splits.

        ``model_repository`` is the directory that an existing Triton reads; else it lies below ``root``.
        ``shared_memory_bytes`` is what Triton's backends may share, where that bounds batches.
        """
        self.root = root
        #: The directory that Triton is pointed at.
        self.model_repository = model_repository or root / "models"
        # On the same file system as the models: a verified file is renamed into place.
        self._incoming = root / "incoming" if model_repository is None else model_repository / ".edgefolio-incoming"
        self.model = model
        self.threads = threads
        self.shared_memory_bytes = shared_memory_bytes
        self.worker_rank = worker_rank
        #: The manifests of the revisions on disk.
        self.manifests = KeptManifests(root / "revisions" / model, model=model)
        self._verified: dict[Path, StoredFile] = {}

    def largest_batch(self, manifest: Manifest) -> int:
        """Samples of the largest request that is served: shared memory holds those of two variants, during a switch."""
        signature = manifest.signature
        if self.shared_memory_bytes is None:
            return signature.max_batch_size
        return largest_batch(signature=signature, limit_bytes=self.shared_memory_bytes)

    @property
    def model_directory(self) -> Path:
        """Triton's directory of the model."""
        return self.model_repository / self.model

    def version_directory(self, version: int) -> Path:
        """The directory of a verified version."""
        return self.model_directory / str(version)

    def path_of(self, manifest: Manifest, variant: Variant) -> Path:
        """The path of the variant's verified model, or plan."""
        return self.version_directory(manifest.version_of(variant)) / variant.file_name

    def has(self, manifest: Manifest, variant: Variant) -> bool:
        """Whether the variant is on disk, with the manifest's digest and probe, and may be opened by a runtime."""
        path = self.path_of(manifest, variant)
        if variant.split is not None:
            rank = self.worker_rank
            return rank is not None and folder_problem(path.parent, manifest, variant, rank) is None
        try:
            status = path.stat()
            signature = (status.st_size, status.st_mtime_ns, status.st_ino)
            known = self._verified.get(path)
            if known is not None and known.signature == signature:
                return known.sha256 == variant.sha256
            probe = (path.parent / "probe.json").read_bytes()
            if probe != backend_probe(manifest, variant):
                return False
            digest = digest_of_file(path)
            if digest == variant.sha256:
                # An agent of an earlier version may have put it here.
                check_onnx_file(path)
        except (OSError, IntegrityError):
            return False
        self._verified[path] = StoredFile(sha256=digest, signature=signature)
        return digest == variant.sha256

    def require(self, manifest: Manifest, variant: Variant) -> Path:
        """Verify the variant on disk again. Raises :class:`IntegrityError` if it is missing or damaged."""
        path = self.path_of(manifest, variant)
        self._verified.pop(path, None)
        if not self.has(manifest, variant):
            raise IntegrityError(
                f"the local copy of variant {variant.name!r} is missing or damaged.",
                location=str(path),
                remedy="It is fetched again while the repository can be reached.",
            )
        return path

    def available(self, manifest: Manifest) -> tuple[Variant, ...]:
        """The variants that can be loaded now, by rank."""
        return tuple(variant for variant in manifest.single_node if self.has(manifest, variant))

    def available_names(self, manifest: Manifest) -> tuple[str, ...]:
        """The names of the variants that can be loaded now, by rank."""
        return tuple(variant.name for variant in self.available(manifest))

    def is_complete(self, manifest: Manifest) -> bool:
        """Whether all variants of ``manifest`` can be loaded."""
        return len(self.available(manifest)) == len(manifest.single_node)

    def fetch(
        self,
        repository: Repository,
        manifest: Manifest,
        variant: Variant,
        *,
        maximum_bytes_per_second: int | None = None,
        may_go_on: Callable[[], bool] = lambda: True,
    ) -> None:
        """Fetch one variant, unless it is on disk. Raises as :meth:`Repository.fetch` does.

        A file that no runtime may open (:mod:`edgefolio.untrusted.model_file`) is an :class:`IntegrityError`, too.
        """
        if self.has(manifest, variant):
            return
        if variant.split is not None and self.worker_rank is None:
            raise ValueError("this machine is no worker, so it has no shard of a split")
        version = manifest.version_of(variant)
        incoming = self._incoming / self.model / str(version)
        repository.fetch(
            manifest,
            variant,
            incoming / variant.file_name,
            maximum_bytes_per_second=maximum_bytes_per_second,
            may_go_on=may_go_on,
            shard=self.worker_rank,
        )
        try:
            self._complete(repository, manifest, variant, incoming)
        except IntegrityError:
            shutil.rmtree(incoming, ignore_errors=True)
            raise
        place = self.version_directory(version)
        with writing(place, field=FIELD):
            if place.exists():
                # Damaged or of another manifest; a served version is in memory already.
                shutil.rmtree(place)
            make_folder(place.parent, field=FIELD)
            incoming.rename(place)
            fsync_folder(place.parent)

    def _complete(self, repository: Repository, manifest: Manifest, variant: Variant, folder: Path) -> None:
        """Check what was fetched, and add what the backend needs beside it. Raises :class:`IntegrityError`."""
        if variant.split is None:
            location = repository.location(layout.variant_path(manifest.model, variant.file))
            check_onnx_file(folder / "model.onnx", location=location)
            write_durably(folder / "probe.json", backend_probe(manifest, variant), field=FIELD)
            return
        assert self.worker_rank is not None
        check_segments(folder, manifest, variant, self.worker_rank)
        member = worker_member(manifest, variant, self.worker_rank)
        write_durably(folder / member_file.NAME, member.to_bytes(), field=FIELD)

    def write_configuration(self, manifest: Manifest) -> None:
        """Write ``config.pbtxt`` with the fastest variant's version, unless it is equivalent already.

        Our loads carry their own configuration; this one is for loads by name alone.
        """
        configuration = configuration_of(
            manifest,
            model_name=self.model,
            threads=self.threads,
            versions=[manifest.version_of(manifest.single_node[0])],
            largest_batch=self.largest_batch(manifest),
        )
        path = self.model_directory / "config.pbtxt"
        with contextlib.suppress(OSError):
            if is_text_of(path.read_bytes(), configuration):
                return
        write_durably(path, as_text(configuration).encode(), field=FIELD)

    def complete_before(self, revision: int) -> Manifest | None:
        """The newest kept revision before ``revision`` that is complete on disk."""
        older = sorted((number for number in self.manifests.revisions() if number < revision), reverse=True)
        manifests = (self.manifests.of_version(number * VERSIONS_PER_REVISION) for number in older)
        return next((found for found in manifests if found is not None and self.is_complete(found)), None)

    def occupied_bytes(self) -> int:
        """Size of Triton's model repository on disk, without transfers under way."""
        found = 0
        for folder, _, names in os.walk(self.model_repository):
            if self._incoming in (Path(folder), *Path(folder).parents):
                continue
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    found += _in_blocks(os.lstat(Path(folder, name)).st_size)
        return found

    def missing_bytes(self, manifest: Manifest) -> int:
        """Size of the variants of ``manifest`` that are not on disk."""
        return sum(
            _in_blocks(variant.size_bytes) + _in_blocks(len(backend_probe(manifest, variant)))
            for variant in manifest.single_node
            if not self.has(manifest, variant)
        )

    def keep_only(self, revisions: Collection[int], *, served_versions: Iterable[int]) -> tuple[int, ...]:
        """Remove all other revisions' versions, except those still served. Returns the removed versions."""
        served = set(served_versions)
        removed = []
        for directory in sorted(self.model_directory.glob("[0-9]*")):
            version = int(directory.name) if directory.name.isdecimal() else None
            if version is None or version in served or version // VERSIONS_PER_REVISION in revisions:
                continue
            # Renamed first, so that a crash leaves no half version.
            doomed = self._incoming / f"removed-{self.model}-{version}-{os.getpid()}"
            make_folder(doomed.parent, field=FIELD)
            with writing(doomed, field=FIELD):
                directory.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
            removed.append(version)
        kept = {*revisions, *(version // VERSIONS_PER_REVISION for version in served)}
        self.manifests.keep_only(kept)
        self.forget_transfers(kept)
        return tuple(removed)

    def free_bytes(self) -> int:
        """Free space of the disk that holds the models."""
        return shutil.disk_usage(
            next(folder for folder in (self._incoming, *self._incoming.parents) if folder.exists())
        ).free

    def forget_transfers(self, revisions: Collection[int]) -> None:
        """Remove remains of interrupted transfers of other revisions, and half-removed versions."""
        for directory in (*self._incoming.glob(f"{self.model}/[0-9]*"), *self._incoming.glob("removed-*")):
            version = int(directory.name) if directory.name.isdecimal() else None
            if version is None or version // VERSIONS_PER_REVISION not in revisions:
                shutil.rmtree(directory, ignore_errors=True)


def _in_blocks(size: int) -> int:
    """Size of a file on disk, in whole blocks."""
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES
