"""What the Dockerfiles here run while they build.

    install.py packages EXTRA...     the pinned packages of these extras, into /opt/edgefolio
    install.py pruner included       those of the extra "pruner"; torch comes from TORCH_INDEX_URL where that is set
    install.py pruner mounted        the small ones of them; the others are looked for in /opt/libraries at run time
    install.py project               Edgefolio itself, without its dependencies, into /opt/edgefolio
    install.py triton                the server in NVIDIA's wheel, into /opt/tritonserver, and what our backend needs
    install.py requirements EXTRA... print what ``packages`` installs

``/opt/edgefolio`` is a virtual environment without pip. Where ``/wheels`` holds wheels, they are all that is used: no
network is needed then. Everything is compiled: a container with a read-only root cannot keep what it compiles itself.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ENVIRONMENT = Path("/opt/edgefolio")
TRITON = Path("/opt/tritonserver")
#: Where a volume with large libraries is mounted; looked into last.
MOUNTED = Path("/opt/libraries")
WHEELS = Path("/wheels")
SOURCES = Path(__file__).resolve().parent
OWN_EXTRA = re.compile(r"edgefolio\[([a-z0-9,]+)\]")
#: Parts of packages that are not needed at run time.
TESTS = re.compile(r"/(test|tests)/")


def requirements(extra: str, *, project: Path = SOURCES / "pyproject.toml") -> list[str]:
    """What an extra needs as ``project`` says, other extras of Edgefolio included. "": what all of them need."""
    document = tomllib.loads(project.read_text())["project"]
    if not extra:
        return list(document["dependencies"])
    found: list[str] = []
    for requirement in document["optional-dependencies"][extra]:
        own = OWN_EXTRA.fullmatch(requirement)
        inner = own[1].split(",") if own else []
        found += [each for name in inner for each in requirements(name, project=project)] or [requirement]
    return found


def make_environment() -> None:
    """The virtual environment, empty: the interpreter is the base image's."""
    if not (ENVIRONMENT / "pyvenv.cfg").exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(ENVIRONMENT)], check=True)


def install(*arguments: str) -> None:
    """Run pip on the virtual environment: the base image's own pip, or where it has none the one among the wheels."""
    pip = ["-m", "pip"]
    if subprocess.run([sys.executable, *pip, "--version"], capture_output=True, check=False).returncode:
        pip = [f"{next(WHEELS.glob('pip-*.whl'))}/pip"]
    source = ["--no-index", f"--find-links={WHEELS}"] if any(WHEELS.glob("*.whl")) else []
    make_environment()
    subprocess.run(
        [
            *(sys.executable, *pip, f"--python={ENVIRONMENT / 'bin' / 'python3'}", "install"),
            *("--no-cache-dir", "--no-compile", "--disable-pip-version-check", "--root-user-action=ignore"),
            *(f"--constraint={SOURCES / 'constraints.txt'}", *source, *arguments),
        ],
        check=True,
    )


def install_pruner(libraries: str) -> None:
    """The pruner's packages, or the small ones and a pointer to where a volume with the large ones is mounted."""
    if libraries == "mounted":
        install(*requirements(""), *requirements("s3"))
        search_path = next(ENVIRONMENT.glob("lib/python3*/site-packages")) / "mounted.pth"
        search_path.write_text(f"{MOUNTED}\n")
    elif libraries == "included":
        if index := os.environ.get("TORCH_INDEX_URL"):
            install(f"--index-url={index}", "torch", "torchvision")
        install(*requirements(""), *requirements("pruner"))
    else:
        sys.exit(f"install.py: LIBRARIES is {libraries!r}; it must be included or mounted")
    compile_folder(ENVIRONMENT)


def install_triton() -> None:
    """The server, its libraries and its Python backend, where NVIDIA's image has them; and what our backend imports."""
    install(*requirements("backend"))
    compile_folder(ENVIRONMENT)
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    python_backend = TRITON / "backends" / "python"
    with tempfile.TemporaryDirectory() as folder:
        install("--no-deps", f"--target={folder}", "nvidia-pytriton")
        server = Path(folder) / "pytriton" / "tritonserver"
        shutil.copytree(server / "bin", TRITON / "bin")
        # The wheel brings a Python for a version of the backend that has no use here.
        unused = shutil.ignore_patterns("libpython*")
        shutil.copytree(Path(folder) / "nvidia_pytriton.libs", TRITON / "lib", ignore=unused)
        shutil.copytree(server / "backends" / "python", python_backend)
        shutil.copy(server / "python_backend_stubs" / minor / "triton_python_backend_stub", python_backend)
    compile_folder(TRITON)


def compile_folder(folder: Path) -> None:
    """Compile ``folder`` so that Python compares neither times nor digests when it reads the result."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    # What does not compile (templates, code for other versions of Python) is not imported either.
    compileall.compile_dir(folder, maxlevels=30, quiet=2, workers=0, rx=TESTS, invalidation_mode=mode)


def main(command: str, *arguments: str) -> None:
    """Run one of the commands that stand above."""
    if command == "requirements":
        project = SOURCES.parent / "pyproject.toml"
        print("\n".join(each for extra in ("", *arguments) for each in requirements(extra, project=project)))
    elif command == "packages":
        install(*requirements(""), *(each for extra in arguments for each in requirements(extra)))
        compile_folder(ENVIRONMENT)
    elif command == "pruner":
        install_pruner(*arguments)
    elif command == "project":
        install("--no-deps", str(SOURCES))
        compile_folder(ENVIRONMENT)
    elif command == "triton":
        install_triton()
    else:
        sys.exit(f"install.py: unknown command {command!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
