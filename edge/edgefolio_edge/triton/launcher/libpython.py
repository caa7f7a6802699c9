"""Find ``libpython3.X.so.1.0``, which the Python backend's stub is linked against.

A Python built with ``--enable-shared`` has it beside itself; Debian's and Ubuntu's own ``python3.X`` does not, there it
is the package ``libpython3.X``. Without root that package can still be downloaded and unpacked into the user's cache.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import platformdirs

from edgefolio.errors import UserError

#: Seconds for ``apt-get download``: the package has 2 MB.
DOWNLOAD_SECONDS = 120


def library_name() -> str:
    """The file name the stub asks the dynamic linker for: ``libpython3.11.so.1.0``."""
    return f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"


def cache_directory() -> Path:
    """Where a downloaded library is kept: ``$XDG_CACHE_HOME/edgefolio/libpython``."""
    return platformdirs.user_cache_path("edgefolio") / "libpython"


def find_libpython() -> Path | None:
    """The directory that holds the library of the running Python, or ``None``. Downloads nothing."""
    name = library_name()
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    candidates = [
        Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib"),
        Path(sys.base_exec_prefix) / "lib",
        Path("/usr/lib") / multiarch,
        Path("/lib") / multiarch,
        Path("/usr/local/lib"),
        cache_directory(),
    ]
    return next((directory for directory in candidates if (directory / name).is_file()), None)


def require_libpython() -> Path:
    """The directory of the library; where it is missing, the distribution's package is unpacked into the cache.

    Raises :class:`UserError` where neither is possible.
    """
    found = find_libpython()
    if found is None:
        found = _download()
    if found is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise UserError(
            f"{library_name()} is missing: Triton's Python backend cannot start without it.",
            field="python",
            value=sys.executable,
            remedy=f"Run: sudo apt-get install libpython{version} (or use a Python built with --enable-shared).",
        )
    return found


def _download() -> Path | None:
    """Fetch and unpack the distribution's package without root. ``None`` if that does not work here."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return None
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    # Ubuntu 24.04 renamed the package for its 64-bit time_t transition.
    for package in (f"libpython{version}", f"libpython{version}t64"):
        with tempfile.TemporaryDirectory(dir=cache, prefix=".unpack-") as scratch:
            command = ["apt-get", "download", package]
            if not _succeeds(command, working_directory=scratch):
                continue
            archives = list(Path(scratch).glob("*.deb"))
            unpacked = Path(scratch) / "unpacked"
            if not archives or not _succeeds(
                ["dpkg-deb", "-x", str(archives[0]), str(unpacked)], working_directory=scratch
            ):
                continue
            for library in unpacked.rglob(library_name()):
                # A rename within one directory tree: a second process sees all of the file or none of it.
                library.replace(cache / library_name())
                return cache
    return None


def _succeeds(command: list[str], *, working_directory: str) -> bool:
    try:
        finished = subprocess.run(
            command, cwd=working_directory, capture_output=True, timeout=DOWNLOAD_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return finished.returncode == 0
