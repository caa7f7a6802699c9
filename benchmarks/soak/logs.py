"""Logs of pods: those that are gone as well, kept beside the results for each fault in which something failed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

#: Namespaces of serving pods and of the operator; of other pods (clients, neighbours) nothing is kept.
_NAMESPACES = ("site", "edgefolio-system")
_PODS = re.compile(r"^(digits|edgefolio-operator)-")
_SECONDS = 1.0
#: The end of each log, and the faults whose logs are kept: the latest.
TAIL_BYTES = 256 << 10
KEPT_FAULTS = 20


class PodLogs:
    """Follows the logs of the nodes below ``run`` while it is open; what is to last goes to ``kept``.

    A kubelet removes a log with its pod. Each file is linked as soon as it is seen, which keeps its content.
    """

    def __init__(self, run: Path, nodes: Sequence[str], *, kept: Path) -> None:
        self._folders = {node: run / node / "log" / "pods" for node in nodes}
        # A hard link must stay on the file system of the logs.
        self._links = run / "kept-logs"
        self._kept = kept
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="logs", daemon=True)

    def __enter__(self) -> PodLogs:
        shutil.rmtree(self._kept, ignore_errors=True)
        self._links.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def keep(self, name: str, *, since: float, note: str) -> None:
        """Keep what was logged by pods that said something after ``since``, and ``note``, under ``name``."""
        self.look()
        folder = self._kept / re.sub(r"[^A-Za-z0-9.]+", "-", name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cluster.txt").write_text(note)
        for link in sorted(self._links.iterdir()):
            with contextlib.suppress(OSError):
                if link.stat().st_mtime >= since:
                    (folder / link.name).write_bytes(_tail(link))
        for old in sorted(self._kept.iterdir(), key=lambda entry: entry.stat().st_mtime)[:-KEPT_FAULTS]:
            shutil.rmtree(old)

    def look(self) -> None:
        """Link the logs that are new."""
        for node, folder in self._folders.items():
            for file in folder.glob("*/*/*.log"):
                namespace, _, pod = file.parts[-3].partition("_")
                if namespace not in _NAMESPACES or not _PODS.match(pod):
                    continue
                with contextlib.suppress(OSError):  # gone meanwhile, or linked before
                    # A log that was rotated has another inode, and its successor the same name.
                    name = f"{node}_{pod.partition('_')[0]}_{file.parts[-2]}_{file.stem}_{file.stat().st_ino}.log"
                    os.link(file, self._links / name)

    def _follow(self) -> None:
        while not self._stop.wait(_SECONDS):
            self.look()


def _tail(file: Path) -> bytes:
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - TAIL_BYTES))
        return opened.read()
