"""The work directory caches results, so that a killed run resumes and ends with the same bytes.

Every result is filed under a digest of all it depends on. It is written in one step, after the files it names.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from edgefolio.errors import TransientError, UserError
from edgefolio.files import make_folder, unwritable, write_durably
from edgefolio.specification import ModelPortfolio

_FIELD = "--work-dir"
_DIGITS_OF_KEY = 16
#: Cache version: raise it when a stage's output changes for the same inputs.
FORMAT = 1


def default_work_directory(portfolio: ModelPortfolio) -> Path:
    """``work/<name>-<digest>`` in the user's cache for Edgefolio; the digest is of the source, the data and the seed.

    Other settings may change without losing training: each result is keyed by its inputs.
    """
    spec = portfolio.spec.model_dump(mode="json", include={"source", "data", "seed"})
    return user_cache_path("edgefolio") / "work" / f"{portfolio.metadata.name}-{key_of(spec)[:12]}"


def key_of(parts: object) -> str:
    """Hexadecimal sha256 of a JSON document."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class WorkDirectory:
    """Results of the stages of one portfolio."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._used: set[str] = set()

    @property
    def used(self) -> frozenset[str]:
        """Names that this run used; all others belong to runs with other settings."""
        return frozenset(self._used)

    @contextlib.contextmanager
    def occupied(self) -> Iterator[None]:
        """Create and lock the directory. Raises :class:`UserError` if it is in use or not writable."""
        make_folder(self.path, field=_FIELD)
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise unwritable(error, path=self.path, field=_FIELD) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise TransientError(
                    "another `edgefolio make` works in this directory.",
                    field=_FIELD,
                    value=self.path,
                    remedy="Wait until it is done, or name another directory.",
                ) from error
            yield
        finally:
            os.close(descriptor)

    def folder(self, stage: str, key: Mapping[str, Any]) -> Path:
        """The folder for the files of ``stage`` with these inputs; it need not exist."""
        return self._named(f"{stage}-{self._short(key)}")

    def result(
        self,
        stage: str,
        key: Mapping[str, Any],
        compute: Callable[[], Any],
        *,
        usable: Callable[[Any], bool] = lambda value: value is not None,
    ) -> Any:
        """The JSON value of ``stage`` for these inputs: the kept one if it is ``usable``, else ``compute()``."""
        kept = self.kept(stage, key, usable=usable)
        return kept if kept is not None else self.keep(stage, key, compute())

    def kept(self, stage: str, key: Mapping[str, Any], *, usable: Callable[[Any], bool] = lambda _value: True) -> Any:
        """The JSON value that an earlier run kept of ``stage`` for these inputs; ``None`` if there is no usable one."""
        value = self._read(self._named(f"{stage}-{self._short(key)}.json"), key)
        return value if value is not None and usable(value) else None

    def keep(self, stage: str, key: Mapping[str, Any], value: Any) -> Any:
        """File ``value`` with the inputs it depends on, for people to read; return it."""
        path = self._named(f"{stage}-{self._short(key)}.json")
        document = {"format": FORMAT, "inputs": key, "value": value}
        write_durably(path, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode(), field=_FIELD)
        return value

    def _named(self, name: str) -> Path:
        self._used.add(name)
        return self.path / name

    def _read(self, path: Path, key: Mapping[str, Any]) -> Any:
        try:
            document = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        # The inputs are compared as they look in JSON: tuples are lists there.
        if not isinstance(document, dict) or document.get("inputs") != json.loads(json.dumps(key)):
            return None
        return document.get("value")

    def _short(self, key: Mapping[str, Any]) -> str:
        return key_of({"format": FORMAT, "inputs": key})[:_DIGITS_OF_KEY]


@contextlib.contextmanager
def no_space_left(path: Path) -> Iterator[None]:
    """Turn a full disk into one :class:`UserError`, whichever library met it."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        found = unwritable(error, path=path, field=_FIELD)
        if "no space left" in found.problem:
            raise found from error
        raise
    except Exception as error:  # safetensors and torch wrap the OSError's text
        if "No space left on device" in str(error) or "File too large" in str(error):
            raise unwritable(OSError(28, "No space left on device"), path=path, field=_FIELD) from error
        raise
