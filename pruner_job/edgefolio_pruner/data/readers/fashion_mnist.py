"""``builtin:fashion-mnist``: 70,000 images of 28 x 28 pixels in ten classes (Xiao, Rasul and Vollgraf 2017).

The files are those of Debian's package ``dataset-fashion-mnist`` (MIT licence): installed, or kept in the user's cache,
or fetched with apt and unpacked without root. In every case the contents must have the digests below; these are
taken over the unpacked IDX data because each distribution compresses the files anew.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from platformdirs import user_cache_path

from edgefolio.errors import UserError
from edgefolio_pruner.data.raw import TEST, TRAIN, RawData, RawSplit

PACKAGE = "dataset-fashion-mnist"
INSTALLED = Path("/usr/share/datasets/fashion-mnist")
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_APT_SECONDS = 300


@dataclass(frozen=True)
class IdxFile:
    """One file of the set: the sha256 of its unpacked bytes, the bytes before the values, and the values' shape."""

    name: str
    sha256: str
    header: int
    shape: tuple[int, ...]


FILES = {
    "train images": IdxFile(
        name="train-images-idx3-ubyte.gz",
        sha256="c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        header=16,
        shape=(60000, 1, 28, 28),
    ),
    "train labels": IdxFile(
        name="train-labels-idx1-ubyte.gz",
        sha256="bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        header=8,
        shape=(60000,),
    ),
    "test images": IdxFile(
        name="t10k-images-idx3-ubyte.gz",
        sha256="5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        header=16,
        shape=(10000, 1, 28, 28),
    ),
    "test labels": IdxFile(
        name="t10k-labels-idx1-ubyte.gz",
        sha256="0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        header=8,
        shape=(10000,),
    ),
}


def read_fashion_mnist(*, field: str) -> RawData:
    """60,000 samples for training and 10,000 for test, uint8 ``[1, 28, 28]``.

    Raises :class:`UserError` for ``field`` if the files are damaged or unavailable.
    """
    folder = _find_or_fetch(field)
    arrays = {part: _read(folder, file, field) for part, file in FILES.items()}
    return RawData(
        parts={
            name: RawSplit(images=arrays[f"{name} images"], labels=arrays[f"{name} labels"].astype(np.int64))
            for name in (TRAIN, TEST)
        },
        class_names=CLASS_NAMES,
        scale=1 / 255,
    )


def cache_folder() -> Path:
    """Where fetched files are kept, on Linux ``$XDG_CACHE_HOME/edgefolio/fashion-mnist``."""
    return user_cache_path("edgefolio") / "fashion-mnist"


def _find_or_fetch(field: str) -> Path:
    cache = cache_folder()
    for folder in (INSTALLED, cache):
        if all((folder / file.name).is_file() for file in FILES.values()):
            return folder
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fashion-mnist-", dir=cache.parent) as scratch:
            unpacked = _fetch(Path(scratch))
            cache.mkdir(exist_ok=True)
            for file in FILES.values():
                (unpacked / file.name).replace(cache / file.name)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(
            f"Fashion-MNIST is not installed and could not be fetched ({_reason(error)}).",
            field=field,
            value="builtin:fashion-mnist",
            remedy=f"Install Debian's package {PACKAGE}, or name an .npz file with x_train, y_train, x_test, y_test.",
        ) from error
    return cache


def _fetch(scratch: Path) -> Path:
    """Download the package into ``scratch`` and unpack it there; the folder with the files."""
    for command in ("apt-get", "dpkg-deb"):
        if shutil.which(command) is None:
            raise FileNotFoundError(f"{command} is not on this machine")
    (scratch / "lists" / "partial").mkdir(parents=True)
    (scratch / "archives" / "partial").mkdir(parents=True)
    # With its own package lists apt needs neither root nor the system's lists.
    private = ["-o", f"Dir::State::Lists={scratch}/lists", "-o", f"Dir::Cache={scratch}", "-o", "APT::Sandbox::User="]
    try:
        _run(["apt-get", "-q", "download", PACKAGE], scratch)
    except subprocess.SubprocessError:
        _run(["apt-get", "-q", *private, "update"], scratch)
        _run(["apt-get", "-q", *private, "download", PACKAGE], scratch)
    package = next(scratch.glob(f"{PACKAGE}_*.deb"), None)
    if package is None:
        raise FileNotFoundError("apt-get downloaded no package")
    _run(["dpkg-deb", "-x", str(package), str(scratch / "root")], scratch)
    return scratch / "root" / INSTALLED.relative_to("/")


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(
        command,
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=_APT_SECONDS,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in str(error.stderr).splitlines() if line.startswith("E:")]
        return f"{error.cmd[0]}: {lines[0] if lines else f'exit code {error.returncode}'}"
    return f"{type(error).__name__}: {error}"


def _read(folder: Path, file: IdxFile, field: str) -> npt.NDArray[np.uint8]:
    expected = file.header + int(np.prod(file.shape))
    try:
        with gzip.open(folder / file.name, "rb") as stream:
            content = stream.read(expected + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(folder / file.name, field) from error
    if len(content) != expected or hashlib.sha256(content).hexdigest() != file.sha256:
        raise _damaged(folder / file.name, field)
    return np.frombuffer(content, dtype=np.uint8, offset=file.header).reshape(file.shape)


def _damaged(path: Path, field: str) -> UserError:
    return UserError(
        f"the file {path} does not hold Fashion-MNIST (its digest is another).",
        field=field,
        value="builtin:fashion-mnist",
        remedy=f"Remove the file, or install the package {PACKAGE} again.",
    )
