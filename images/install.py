"""What the Dockerfiles here run while they build.

    install.py tools                install pip and what builds wheels into /opt/tools, which no image keeps
    install.py requirements IMAGE   print what an image's packages are, by the extras of pyproject.toml
    install.py packages [FOLDER]    install what /requirements.txt says; FOLDER is looked into last at run time
    install.py project              install Edgefolio itself, as far as its rooms lie beside this file
    install.py triton               install the server in NVIDIA's wheel into /opt/tritonserver

Packages go into ``/opt/edgefolio``, a virtual environment without pip. Where ``/wheels`` holds wheels, only they are
used: no network is needed then. TORCH_INDEX_URL is where torch comes from otherwise; empty: from where all do.
Everything is compiled, because a container with a read-only root cannot keep what it compiles itself.
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
from collections.abc import Callable
from pathlib import Path

#: The extras that an image is made of; "" stands for what all of Edgefolio needs.
EXTRAS = {
    "operator": ("", "operator"),
    "edge": ("", "agent"),
    "triton": ("backend",),
    "pruner-included": ("", "pruner"),
    "pruner-mounted": ("", "s3"),
}
#: In constraints.txt is what people use; pip is theirs there.
BUILD_TOOLS = ("pip==26.2.1", "hatchling")
TOOLS = Path("/opt/tools")
ENVIRONMENT = Path("/opt/edgefolio")
TRITON = Path("/opt/tritonserver")
WHEELS = Path("/wheels")
REQUIREMENTS = Path("/requirements.txt")
SOURCES = Path(__file__).resolve().parent
OWN_EXTRA = re.compile(r"edgefolio\[([a-z0-9,]+)\]")
#: Parts of packages that are not needed at run time.
TESTS = re.compile(r"/(test|tests)/")


def requirements_of(project: dict[str, dict[str, list[str]]], extra: str) -> list[str]:
    """What an extra needs; an extra of Edgefolio that it names stands for what that one needs."""
    if not extra:
        return list(project["dependencies"])
    found: list[str] = []
    for requirement in project["optional-dependencies"][extra]:
        own = OWN_EXTRA.fullmatch(requirement)
        inner = own[1].split(",") if own else []
        found += [each for name in inner for each in requirements_of(project, name)] or [requirement]
    return found


def print_requirements(image: str) -> None:
    """Print the requirements of ``image``, or of the ``tools``, one a line."""
    if image not in (*EXTRAS, "tools"):
        sys.exit(f"install.py: unknown image {image!r}; there are {', '.join(EXTRAS)}")
    folder = SOURCES if (SOURCES / "pyproject.toml").exists() else SOURCES.parent
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    found = [each for extra in EXTRAS.get(image, ()) for each in requirements_of(project, extra)] or BUILD_TOOLS
    print("\n".join(dict.fromkeys(found)))


def install_tools() -> None:
    """The pinned pip and hatchling, by the pip of the base image, or where it has none by the one among the wheels."""
    pip = ["-m", "pip"]
    if subprocess.run([sys.executable, *pip, "--version"], capture_output=True, check=False).returncode:
        pip = [f"{next(WHEELS.glob('pip-*.whl'))}/pip"]
    install(*BUILD_TOOLS, into=TOOLS, pip=(sys.executable, *pip))
    compile_folder(TOOLS)


def install(
    *arguments: str, into: Path = ENVIRONMENT, pip: tuple[str, ...] = (f"{TOOLS}/bin/python3", "-m", "pip")
) -> None:
    """Run pip on a virtual environment, which is made if there is none."""
    if not into.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(into)], check=True)
    source = ["--no-index", f"--find-links={WHEELS}"] if any(WHEELS.glob("*.whl")) else []
    subprocess.run(
        [
            *(*pip, f"--python={into / 'bin' / 'python3'}", "install"),
            *("--no-cache-dir", "--no-compile", "--disable-pip-version-check", "--root-user-action=ignore"),
            *(f"--constraint={SOURCES / 'constraints.txt'}", *source, *arguments),
        ],
        check=True,
    )


def install_packages(folder: str = "") -> None:
    """The packages of the image. What lies in ``folder`` when a container starts is found, too, but after them."""
    index = os.environ.get("TORCH_INDEX_URL")
    if index and re.search("^torch\\b", REQUIREMENTS.read_text(), re.MULTILINE):
        install(f"--index-url={index}", "torch", "torchvision")
    install(f"--requirement={REQUIREMENTS}")
    if folder:
        (next(ENVIRONMENT.glob("lib/python3*/site-packages")) / "mounted.pth").write_text(f"{folder}\n")
    compile_folder(ENVIRONMENT)


def install_project() -> None:
    """Edgefolio without its dependencies. kubectl's plugin is for people's own machines."""
    (SOURCES / "README.md").touch()  # its text is for the package's page; a changed word need not make new images
    build = [f"{TOOLS}/bin/python3", "-m", "hatchling", "build", "--target=wheel"]
    subprocess.run(build, cwd=SOURCES, check=True)
    install("--no-deps", *map(str, (SOURCES / "dist").glob("*.whl")))
    (ENVIRONMENT / "bin" / "kubectl-edgefolio").unlink(missing_ok=True)
    compile_folder(ENVIRONMENT)


def install_triton() -> None:
    """The server, its libraries and its Python backend, where NVIDIA's image has them."""
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    python_backend = TRITON / "backends" / "python"
    with tempfile.TemporaryDirectory() as folder:
        # The server alone is wanted, not the binding, which needs more packages.
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


COMMANDS: dict[str, Callable[..., None]] = {
    "tools": install_tools,
    "requirements": print_requirements,
    "packages": install_packages,
    "project": install_project,
    "triton": install_triton,
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
