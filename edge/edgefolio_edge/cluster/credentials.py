"""Credentials of the object store, from the files of a mounted Secret.

Kubernetes updates the files of a Secret and never the variables of a running container: what was mended or rotated is
read the next time that the repository is opened, which happens after each failure.
"""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping
from pathlib import Path

#: Names that credentials have; the others change how this program runs.
_VARIABLE = re.compile(r"^(?!EDGEFOLIO_(?!NETRC$)|POD_|LD_|PYTHON|PATH$|HOME$)[A-Z][A-Z0-9_]{0,127}$")
_LARGEST_BYTES = 64 << 10


class MountedCredentials:
    """The files in ``directory`` as environment variables, which is where clients of object stores look for them."""

    def __init__(self, directory: Path | None, *, environment: MutableMapping[str, str] = os.environ) -> None:
        self._directory = directory
        self._environment = environment
        self._taken: frozenset[str] = frozenset()

    def take(self) -> None:
        """Read the files anew. A file that is gone takes its variable with it; without a file nothing changes."""
        values = self._values()
        for name in self._taken - values.keys():
            self._environment.pop(name, None)
        self._environment.update(values)
        self._taken = frozenset(values)

    def _values(self) -> dict[str, str]:
        values: dict[str, str] = {}
        if self._directory is None:
            return values
        try:
            files = sorted(self._directory.iterdir())
        except OSError:
            return values
        for path in files:
            if not _VARIABLE.match(path.name):
                continue
            try:
                text = path.read_bytes()[:_LARGEST_BYTES].decode()
            except (OSError, UnicodeDecodeError):
                continue
            if "\0" not in text:
                values[path.name] = text
        return values
