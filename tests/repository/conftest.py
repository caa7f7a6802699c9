"""Small drafts to publish, a real S3 server on loopback, and publishers in processes of their own."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from drafts import contents_of, draft_of
from s3_server import s3_endpoint, s3_uri

from edgefolio.manifest import Manifest

__all__ = ["s3_endpoint", "s3_uri"]


@dataclass(frozen=True)
class Draft:
    """What a publisher is given."""

    manifest: Manifest
    files: dict[str, Path]
    contents: dict[str, bytes]


@pytest.fixture
def make_draft(tmp_path: Path) -> Callable[..., Draft]:
    """``make_draft(text)``: a draft of two variants whose bytes depend on ``text``."""

    def make(text: str = "one", *, size: int = 3000, model: str = "digits") -> Draft:
        contents = contents_of(text, size=size)
        folder = tmp_path / "drafts" / uuid.uuid4().hex
        folder.mkdir(parents=True)
        files = {}
        for name, content in contents.items():
            files[name] = folder / f"{name}.onnx"
            files[name].write_bytes(content)
        return Draft(manifest=draft_of(contents, model=model), files=files, contents=contents)

    return make


@pytest.fixture(params=["directory", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty repository, once in a directory and once in an object store."""
    if request.param == "directory":
        return str(tmp_path / "repository")
    s3: str = request.getfixturevalue("s3_uri")
    return s3


PUBLISHER = """
import os, pathlib, resource, signal, sys
from edgefolio.errors import UserError
from edgefolio.manifest import Manifest
from edgefolio.repository import Publication
uri, folder, kill_at, largest_file = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
draft = Manifest.from_bytes((folder / "draft.json").read_bytes(), location="draft")
files = {variant.name: folder / f"{variant.name}.onnx" for variant in draft.variants}
if largest_file:
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
def step(name):
    print(name, flush=True)
    if name == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
try:
    published = Publication.open(uri).publish(draft, files, history_limit=3, on_step=step)
except UserError as error:
    print(error.one_line())
    sys.exit(2)
print(published.manifest.revision, published.pointer.manifest_sha256, published.is_current)
"""


@pytest.fixture
def start_publisher() -> Callable[..., subprocess.Popen[str]]:
    """Start a publisher in a process of its own, which kills itself after the step ``kill_at``."""

    def start(uri: str, draft: Draft, *, kill_at: str = "", largest_file: int = 0) -> subprocess.Popen[str]:
        folder = next(iter(draft.files.values())).parent
        (folder / "draft.json").write_bytes(draft.manifest.to_bytes())
        return subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, uri, str(folder), kill_at, str(largest_file)],
            stdout=subprocess.PIPE,
            text=True,
        )

    return start
