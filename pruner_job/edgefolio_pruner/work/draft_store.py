"""The draft of a manifest, kept before it is published: from then on every attempt publishes the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgefolio.errors import IntegrityError
from edgefolio.manifest import Manifest
from edgefolio.repository.fetching import digest_of_file
from edgefolio.repository.version_files import files_of
from edgefolio_pruner.work.directory import WorkDirectory

_STAGE = "decided"


class DraftStore:
    """The draft that the pruning run called ``making`` publishes as ``model``, and where its files lie."""

    def __init__(self, work: WorkDirectory, *, making: str, model: str) -> None:
        self._work = work
        self._key = {"making": making, "model": model}

    def keep(self, draft: Manifest, files: Mapping[str, Path]) -> None:
        """Keep the draft with its ``files``, which lie in the work directory."""
        paths = {name: path.relative_to(self._work.path).as_posix() for name, path in files.items()}
        value = {"draft": draft.model_dump(mode="json", by_alias=True), "files": paths}
        self._work.keep(_STAGE, self._key, value)

    def kept(self) -> tuple[Manifest, dict[str, Path]] | None:
        """The kept draft; ``None`` if there is none, or a file is missing or damaged."""
        value = self._work.kept(_STAGE, self._key)
        try:
            return self._read(value) if value is not None else None
        except (ValidationError, IntegrityError, KeyError, TypeError, OSError):
            return None

    def _read(self, value: dict[str, Any]) -> tuple[Manifest, dict[str, Path]] | None:
        draft = Manifest.model_validate(value["draft"])
        files = {variant.name: self._work.path / value["files"][variant.name] for variant in draft.variants}
        whole = all(
            digest_of_file(file.local) == file.sha256
            for variant in draft.variants
            for file in files_of(draft.model, variant, files[variant.name])
        )
        return (draft, files) if whole else None
