"""Locator of Triton inside the ``nvidia-pytriton`` wheel, and the layout it needs to run alone.

The wheel is used for its server alone, not for its Python binding. Measured with 0.7.0, which carries Triton 2.51.0.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import edgefolio_worker
from edgefolio.components import WHEEL_TRITON
from edgefolio.errors import UserError
from edgefolio_edge.models.triton_configuration import BACKEND, SPLIT_BACKEND
from edgefolio_edge.triton.launcher.libpython import require_libpython
from edgefolio_edge.triton.processes import STUB

WHEEL = "nvidia-pytriton"
WHEEL_VERSION = "0.7.0"
#: The Triton inside that wheel, and the oldest one that this code was tried with.
TRITON_VERSION = WHEEL_TRITON
#: Where workers of splits find their set file, and say how they are.
WORKER_FOLDER = "EDGEFOLIO_WORKER_FOLDER"
#: Variables that server and backend inherit: search paths, language, and settings of allocator and thread pools.
_INHERITED = re.compile(
    r"^(PATH|LD_LIBRARY_PATH|LANG|LANGUAGE|LC_[A-Z]+|TZ|GLIBC_TUNABLES|MALLOC_[A-Z_]+|OMP_[A-Z_]+|KMP_[A-Z_]+|"
    r"CUDA_VISIBLE_DEVICES|NVIDIA_[A-Z_]+|EDGEFOLIO_LOADING_NICENESS)$"
)


@dataclass(frozen=True, kw_only=True)
class TritonWheel:
    """Where the parts of the installed wheel lie."""

    server: Path
    python_backend: Path
    stub: Path
    libraries: Path


def locate_wheel() -> TritonWheel:
    """The installed wheel. Raises :class:`UserError` if it is absent, of another version, or without our Python."""
    try:
        installed = distribution(WHEEL)
    except PackageNotFoundError as error:
        raise UserError(
            "no Triton is installed here.",
            field="installation",
            remedy=(
                f"Run: pip install 'edgefolio[edge]' (it brings {WHEEL} {WHEEL_VERSION}), "
                "or attach to a running Triton with --endpoint."
            ),
        ) from error
    if installed.version != WHEEL_VERSION:
        raise UserError(
            f"this version of {WHEEL} was never tried; {WHEEL_VERSION} (Triton {TRITON_VERSION}) was.",
            field=WHEEL,
            value=installed.version,
            remedy=f"Run: pip install '{WHEEL}=={WHEEL_VERSION}'",
        )
    site_packages = Path(str(installed.locate_file("")))
    home = site_packages / "pytriton" / "tritonserver"
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    wheel = TritonWheel(
        server=home / "bin" / "tritonserver",
        python_backend=home / "backends" / "python",
        stub=home / "python_backend_stubs" / minor / STUB,
        libraries=site_packages / "nvidia_pytriton.libs",
    )
    if not wheel.stub.is_file():
        carried = sorted(path.name for path in (home / "python_backend_stubs").glob("3.*"))
        raise UserError(
            f"{WHEEL} has no Python backend for this Python; it has one for {', '.join(carried) or 'none'}.",
            field="python",
            value=minor,
            remedy="Use one of those versions of Python.",
        )
    if not os.access(wheel.server, os.X_OK):
        raise UserError(
            "the server in the wheel cannot be executed.",
            field=WHEEL,
            value=wheel.server,
            remedy=f"Run: pip install --force-reinstall '{WHEEL}=={WHEEL_VERSION}'",
        )
    return wheel


def lay_out_backends(wheel: TritonWheel, destination: Path) -> Path:
    """Make the backend directory ``destination``: NVIDIA's Python backend with its stub, and our two on top of it.

    Returns ``destination``. The stub must lie inside the directory of the Python backend, where the wheel lacks it.
    """
    python = destination / "python"
    python.mkdir(parents=True)
    for source in wheel.python_backend.iterdir():
        if source.suffix in {".so", ".py"}:
            # Copies: Triton refuses a backend whose library is a link to another directory.
            shutil.copy(source, python / source.name)
    shutil.copy(wheel.stub, python / STUB)
    sources = Path(__file__).parents[1]
    ignored = shutil.ignore_patterns("__pycache__")
    for name, folders in ((BACKEND, ["backend"]), (SPLIT_BACKEND, ["backend", "split_backend"])):
        for folder in folders:
            # The second one's model.py replaces the first one's.
            shutil.copytree(sources / folder, destination / name, ignore=ignored, dirs_exist_ok=True)
    worker = Path(edgefolio_worker.__file__).parent
    shutil.copytree(worker, destination / SPLIT_BACKEND / worker.name, ignore=ignored)
    return destination


def lay_out_python(destination: Path) -> Path:
    """Make the small virtual environment ``destination`` for the stub. Returns its directory of executables.

    It is the running Python with the same packages, but without what the environment of the user does at each start of
    Python (coverage, hooks of editable installations): the stub starts anew at every switch.
    """
    executables = destination / "bin"
    executables.mkdir(parents=True)
    base = Path(getattr(sys, "_base_executable", "") or sys.executable).resolve()
    for name in ("python", "python3"):
        (executables / name).symlink_to(base)
    (destination / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    packages = destination / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    packages.mkdir(parents=True)
    homes = dict.fromkeys(_home_of(package) for package in ("numpy", "onnxruntime"))
    (packages / "packages.pth").write_text("".join(f"{home}\n" for home in homes))
    return executables


def _home_of(package: str) -> Path:
    specification = importlib.util.find_spec(package)
    if specification is None or specification.origin is None:
        raise UserError(
            f"the Python package {package!r} is not installed, so the backend cannot run models.",
            field="installation",
            remedy="Run: pip install 'edgefolio[edge]'",
        )
    return Path(specification.origin).parents[1]


def environment_for(
    wheel: TritonWheel, *, threads: int, executables: Path, temporary: Path, worker_folder: Path | None = None
) -> dict[str, str]:
    """The server's environment: what it needs of this process's, plus the linker's and the stub's search paths.

    Nothing else is inherited: credentials are the agent's business, whatever their names are.

    The stub ignores PYTHONPATH; it finds its packages through the first ``python3`` on PATH, hence ``executables`` go
    first (see :func:`lay_out_python`). ``temporary`` gets what the server and its libraries put into TMPDIR.
    """
    environment = {name: value for name, value in os.environ.items() if _INHERITED.match(name)}
    paths = [str(wheel.libraries), str(require_libpython())]
    environment["LD_LIBRARY_PATH"] = os.pathsep.join([*paths, *filter(None, [environment.get("LD_LIBRARY_PATH")])])
    environment["PATH"] = os.pathsep.join([str(executables), environment.get("PATH", os.defpath)])
    # numpy's linear algebra is not used in the stub; its thread pool would cost start time and memory at each switch.
    environment["OPENBLAS_NUM_THREADS"] = "1"
    environment["OMP_NUM_THREADS"] = str(threads)
    environment["TMPDIR"] = str(temporary)
    if worker_folder is not None:
        environment[WORKER_FOLDER] = str(worker_folder)
    # ONNX Runtime's wheels send telemetry, and would start it anew at each switch.
    environment["ORT_DISABLE_TELEMETRY"] = "1"
    return environment
