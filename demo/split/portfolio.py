"""The portfolio of the demonstration: made, read back, and what each of its variants answers."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy
import numpy.typing
import onnxruntime

from demo.split.process import ROOT
from edgefolio.manifest import Manifest, Variant
from edgefolio.records.split_member import SplitMember
from edgefolio.repository.version_files import plan_at
from edgefolio_split.executor import SplitExecutor

__all__ = ["PORTFOLIO", "Objective", "Served", "make", "write_answers", "write_set"]

PORTFOLIO = Path(__file__).with_name("portfolio.yaml")
#: Inputs that the client sends in turns.
INPUTS = 8
#: The objective, as a multiple of the predicted time, and the least of it in milliseconds: below, what other processes
#: of this machine do would decide.
OBJECTIVE_FACTOR, LEAST_OBJECTIVE = 5.0, 50.0
#: What the fallback gets of the objective, as a multiple of its profiled 95th percentile, and at least in milliseconds.
FALLBACK_FACTOR, LEAST_FALLBACK = 2.0, 5.0
_ENDING_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Served:
    """A split of a revision, and the variant of one node that answers where the peers do not."""

    manifest: Manifest
    variant: Variant
    fallback: Variant

    @classmethod
    def of(cls, manifest: Manifest) -> Served:
        """The most accurate split, and the smallest variant of one node. Raises ValueError if there is no split."""
        if not manifest.splits:
            reasons = "; ".join(f"{each.name}: {each.reason}" for each in manifest.rejected)
            raise ValueError(f"no split of the portfolio pays on this machine ({reasons})")
        fallback = min(manifest.single_node, key=lambda variant: (variant.size_bytes, variant.rank))
        return cls(manifest=manifest, variant=manifest.splits[-1], fallback=fallback)

    @property
    def split(self) -> SplitMember:
        """How the variant is divided."""
        assert self.variant.split is not None
        return self.variant.split

    @property
    def tensors(self) -> tuple[str, str]:
        """Names of the model's input and output."""
        return self.manifest.signature.inputs[0].name, self.manifest.signature.outputs[0].name


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Milliseconds of the 95th percentile, and after how many the fallback answers for the peers."""

    milliseconds: float
    abandon_milliseconds: float

    @classmethod
    def of(cls, served: Served, milliseconds: float | None = None) -> Objective:
        """The objective that fits this machine, or the given one, with time for the fallback within it."""
        asked = milliseconds or math.ceil(max(LEAST_OBJECTIVE, OBJECTIVE_FACTOR * served.split.predicted_milliseconds))
        latency = served.fallback.profiles[0].latency(1)
        alone = 0.0 if latency is None else latency.p95_milliseconds
        left = asked - max(LEAST_FALLBACK, FALLBACK_FACTOR * alone)
        return cls(milliseconds=asked, abandon_milliseconds=max(left, asked / 2))


def make(portfolio: Path, *, repository: Path, work: Path, report: Path) -> int:
    """Run ``edgefolio make``; returns its exit code. Whatever interrupts this ends it."""
    command = [sys.executable, "-m", "edgefolio.commands.main", "make", "-f", str(portfolio)]
    command += ["--repository", str(repository), "--work-dir", str(work), "--report", str(report)]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=_ENDING_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def write_answers(repository: Path, served: Served, path: Path) -> float:
    """Write inputs, and what split and fallback answer to each, to ``path`` (npz); returns how near is the same.

    Raises ValueError if the two answer so alike that no client could tell who answered.
    """
    manifest, folder = served.manifest, repository / "models" / served.manifest.model
    signature = manifest.signature.inputs[0]
    shape = (INPUTS, 1, *signature.shape)
    inputs = numpy.random.default_rng(0).standard_normal(shape).astype(numpy.float32)
    plan_file = folder / served.variant.file
    executor = SplitExecutor(plan_at(plan_file), lambda name: (plan_file.parent / name).read_bytes())
    split = numpy.stack([executor.run(values).outputs[0] for values in inputs])
    session = onnxruntime.InferenceSession(folder / served.fallback.file, providers=["CPUExecutionProvider"])
    alone = numpy.stack([session.run([served.tensors[1]], {signature.name: values})[0] for values in inputs])
    tolerance = 1e-2 * max(1.0, float(numpy.abs(split).max()))
    nearest = float(numpy.abs(split - alone).reshape(INPUTS, -1).max(axis=1).min())
    if nearest <= 2 * tolerance:
        raise ValueError(f"split and fallback answer alike within {nearest:.2g}; no client could tell them apart")
    numpy.savez(path, input=inputs, **{served.variant.name: split, served.fallback.name: alone})
    return tolerance


def write_set(path: Path, served: Served, objective: Objective, *, addresses: tuple[str, ...]) -> None:
    """The set of workers; each one's certificate lies in ``identity-<rank>`` beside ``path``."""
    workers = [
        {"rank": rank, "address": address, "certificate": f"identity-{rank}/certificate.pem"}
        for rank, address in enumerate(addresses)
    ]
    document = {
        "number": 1,
        "workers": workers,
        "fallback": served.fallback.name,
        "abandonMilliseconds": objective.abandon_milliseconds,
        # What a probe job may take is twice this: the peers answer again once they answer within the objective.
        "predictedMilliseconds": objective.milliseconds / 2,
    }
    # JSON is YAML.
    path.write_text(json.dumps(document))
