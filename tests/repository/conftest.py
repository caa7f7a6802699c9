"""Small drafts to publish, and publishers in processes of their own."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

# The helpers beside this file, under names that no other area uses.
sys.path.insert(0, str(Path(__file__).parent))

from s3_server import s3_endpoint, s3_uri

from edgefolio.manifest import (
    Accuracy,
    DataDigests,
    Environment,
    LatencyProfile,
    Manifest,
    ParityProof,
    Preprocessing,
    Probe,
    Profile,
    Signature,
    Tensor,
    TensorSignature,
    Variant,
)

__all__ = ["s3_endpoint", "s3_uri"]

DIGEST = "0" * 64


def draft_manifest(contents: dict[str, bytes], *, model: str = "digits", created: str = "2026-01-01") -> Manifest:
    """A manifest for variants with these bytes, least accurate first."""
    environment = Environment(
        cpu_model="test", logical_cpus=1, threads=1, onnxruntime_version="0", platform="linux-x86_64"
    )
    latency = LatencyProfile(batch_size=1, mean_milliseconds=1, p50_milliseconds=1, p95_milliseconds=1.5, samples=20)
    accuracy = Accuracy.from_counts(correct=90, samples=100)
    variants = tuple(
        Variant(
            name=name,
            rank=rank,
            file=f"{100 + rank}/model.onnx",
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            parent=None,
            method="dense",
            opset=18,
            ir_version=8,
            parameters=1,
            macs=1,
            validation_accuracy=accuracy,
            test_accuracy=accuracy,
            parity=ParityProof(
                max_absolute_difference=0, max_absolute_logit=1, top1_agreement_percent=100, samples=256
            ),
            exactness=None,
            profiles=(
                Profile(
                    environment=environment,
                    latencies=(latency,),
                    load_milliseconds=1,
                    memory_peak_bytes=1,
                    memory_steady_bytes=1,
                ),
            ),
            probe=Probe(
                inputs=(Tensor(name="input", shape=(1, 1), values=(1.0,)),),
                outputs=(Tensor(name="output", shape=(1, 1), values=(1.0,)),),
                absolute_tolerance=0.1,
            ),
        )
        for rank, (name, content) in enumerate(contents.items(), start=1)
    )
    return Manifest(
        model=model,
        revision=1,
        created=created,
        edgefolio_version="0",
        specification={},
        specification_sha256=DIGEST,
        seed=0,
        source="test",
        data=DataDigests(
            training_uri="test",
            training_sha256=DIGEST,
            validation_sha256=DIGEST,
            test_sha256=DIGEST,
            training_samples=1,
            validation_samples=1,
            test_samples=1,
        ),
        labels=("a",),
        preprocessing=Preprocessing(),
        signature=Signature(
            inputs=(TensorSignature(name="input", datatype="FP32", shape=(1,)),),
            outputs=(TensorSignature(name="output", datatype="FP32", shape=(1,)),),
        ),
        software={},
        request_batch_size=1,
        variants=variants,
    )


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
        contents = {
            name: hashlib.sha256(f"{text} {name}".encode()).digest() * (size // 32 + 1) for name in ("small", "large")
        }
        folder = tmp_path / "drafts" / uuid.uuid4().hex
        folder.mkdir(parents=True)
        files = {}
        for name, content in contents.items():
            files[name] = folder / f"{name}.onnx"
            files[name].write_bytes(content)
        return Draft(manifest=draft_manifest(contents, model=model), files=files, contents=contents)

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
