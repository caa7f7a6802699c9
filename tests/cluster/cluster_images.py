"""The archives that the test bed's nodes import: read, unpacked, and run as restricted as the pods are."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

USER = 65532
#: The mounts that every pod has.
SYSTEM: tuple[tuple[str, str, list[str]], ...] = (
    ("/proc", "proc", []),
    ("/dev", "tmpfs", ["nosuid", "mode=755"]),
    ("/dev/shm", "tmpfs", ["nosuid", "nodev", "mode=1777"]),
    ("/tmp", "tmpfs", ["nosuid", "nodev", "mode=1777"]),
)
_numbers = itertools.count(1)


#: What is unpacked was built here. Python before 3.11.4 knows no filters, and trusts everything.
_TRUSTED: dict[str, Any] = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}


@dataclass(frozen=True, kw_only=True)
class Image:
    """One archive: what its configuration says, and the sizes of its layers."""

    archive: Path
    configuration: Mapping[str, Any]
    layers: Mapping[str, int]

    @classmethod
    def read(cls, archive: Path) -> Image:
        """Read the head of ``archive``, as ``docker save`` and ``buildah push docker-archive:`` write it."""
        with tarfile.open(archive) as opened:
            (manifest,) = _json(opened, "manifest.json")
            layers = {name: opened.getmember(name).size for name in manifest["Layers"]}
            return cls(archive=archive, configuration=_json(opened, manifest["Config"])["config"], layers=layers)

    @property
    def size(self) -> int:
        """Bytes of all layers, not compressed."""
        return sum(self.layers.values())

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a container begins with."""
        return dict(entry.split("=", 1) for entry in self.configuration["Env"])

    def unpack(self, folder: Path) -> None:
        """Make ``folder`` the root file system, with the owners that the layers name."""
        with tarfile.open(self.archive) as opened:
            for name in self.layers:
                with tarfile.open(fileobj=opened.extractfile(name), mode="r|") as layer:
                    for member in layer:
                        # Nothing of a lower layer is taken away: files are only added, or replaced.
                        assert not Path(member.name).name.startswith(".wh."), member.name
                        layer.extract(member, folder, numeric_owner=True, **_TRUSTED)


@dataclass(frozen=True, kw_only=True)
class Finished:
    """How a container ended."""

    exit_code: int
    output: str


@dataclass(kw_only=True)
class Restricted:
    """Runs commands as a pod of a restricted namespace does: not as root, read-only root, no capabilities."""

    image: Image
    root: Path
    folder: Path
    mounts: list[dict[str, Any]] = field(default_factory=list)

    def mount(self, source: Path, destination: str, *, read_only: bool = False) -> None:
        """Let containers see ``source`` at ``destination``; they may write there unless it is ``read_only``."""
        options = ["bind", "ro" if read_only else "rw"]
        self.mounts.append(
            {"destination": destination, "source": str(source), "type": "bind", "options": options},
        )

    def run(self, *command: str, environment: Mapping[str, str] | None = None, seconds: float = 60) -> Finished:
        """Run ``command`` to its end."""
        with self._bundle(command, environment or {}) as (bundle, name):
            done = subprocess.run(
                ["runc", "--root", self.folder / "runc", "run", "--bundle", bundle, name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=seconds,
                check=False,
            )
        return Finished(exit_code=done.returncode, output=done.stdout)

    @contextlib.contextmanager
    def running(self, *command: str, log: Path) -> Iterator[Container]:
        """Run ``command`` while the block lasts."""
        with self._bundle(command, {}) as (bundle, name), log.open("wb") as output:
            process = subprocess.Popen(
                ["runc", "--root", self.folder / "runc", "run", "--bundle", bundle, name],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                yield Container(name=name, runc=self.folder / "runc", process=process, log=log)
            finally:
                # runc hands signals on to the container's first process.
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    @contextlib.contextmanager
    def _bundle(self, command: Sequence[str], environment: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
        name = f"edgefolio-test-{os.getpid()}-{next(_numbers)}"
        bundle = self.folder / name
        bundle.mkdir(parents=True)
        (bundle / "config.json").write_text(json.dumps(self._specification(command, environment)))
        try:
            yield bundle, name
        finally:
            subprocess.run(
                ["runc", "--root", self.folder / "runc", "delete", "--force", name], capture_output=True, check=False
            )

    def _specification(self, command: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
        variables = {**self.image.environment, **environment}
        system = [
            {"destination": path, "type": kind, "source": kind, "options": options} for path, kind, options in SYSTEM
        ]
        return {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": USER, "gid": USER},
                "args": list(command),
                "env": [f"{name}={value}" for name, value in variables.items()],
                "cwd": self.image.configuration.get("WorkingDir") or "/",
                "capabilities": {kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")},
                "noNewPrivileges": True,
            },
            "root": {"path": str(self.root), "readonly": True},
            "mounts": [*system, *self.mounts],
            # A network of its own, with nothing in it but loopback.
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
        }


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container that runs."""

    name: str
    runc: Path
    process: subprocess.Popen[bytes]
    log: Path

    def execute(self, *command: str) -> str:
        """Run ``command`` in it; what it prints. Raises :class:`AssertionError` with its last words."""
        done = subprocess.run(
            ["runc", "--root", self.runc, "exec", self.name, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{self.log.read_text()[-2000:]}"
        return done.stdout

    def wait_for(self, *command: str, seconds: float) -> str:
        """What ``command`` prints, as soon as it succeeds."""
        end = time.monotonic() + seconds
        while True:
            try:
                return self.execute(*command)
            except AssertionError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.2)


def _json(archive: tarfile.TarFile, name: str) -> Any:
    opened = archive.extractfile(name)
    assert opened is not None
    return json.load(opened)
