"""Measures architectures: made trained-looking, damaged, captured, compressed, proven.

Reads ``library:name seed`` lines and answers each with one JSON line. run.py talks to it from another process, so that
an architecture that hangs or takes all memory takes nothing else down.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "exactness"))
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.exactness.architectures import LARGEST_PARAMETERS
from exactness_support.damage import damage
from exactness_support.trained import look_trained

from edgefolio_pruner.exactness import prove_exact
from edgefolio_pruner.model_source.loading import build_architecture, parse_architecture
from edgefolio_pruner.spatial import CaptureRefused, capture, compress

SAMPLES = 8
PROOF_SAMPLES = 2
SIZES = (64, 96, 128, 224, 299)


def measure(name: str, *, seed: int) -> dict[str, Any]:
    """Everything that is recorded of one architecture."""
    record: dict[str, Any] = {"architecture": name, "seed": seed}
    module = build_architecture(parse_architecture(name, ["num_classes=10"]), seed=seed).eval()
    record["parameters"] = sum(parameter.numel() for parameter in module.parameters())
    if record["parameters"] > LARGEST_PARAMETERS[name.partition(":")[0]]:
        return record | {"outcome": "left out", "reason": "too many parameters"}
    samples = _fitting_samples(module, seed)
    record["size"] = samples.shape[-1]
    look_trained(module, samples, seed=seed)
    classifier = [part for part in module.modules() if isinstance(part, (nn.Linear, nn.Conv2d))][-1]
    try:
        done = damage(module, samples[:3], seed=seed, keep=classifier)
    except ValueError as error:
        return record | {"outcome": "left out", "reason": str(error)}
    record |= {"deadShare": done.dead_share, "wholeLayer": done.whole_layer}
    started = time.perf_counter()
    try:
        captured = capture(module, (samples[:2],))
    except CaptureRefused as error:
        return record | {"outcome": "refused", "reason": error.problem}
    captured_at = time.perf_counter()
    compressed = compress(captured)
    compressed_at = time.perf_counter()
    report = compressed.report
    record |= {
        "captureSeconds": round(captured_at - started, 3),
        "compressSeconds": round(compressed_at - captured_at, 3),
        "channels": sum(layer.before for layer in report.layers),
        "channelsRemoved": report.channels_removed,
        "parametersBefore": report.parameters_before,
        "parametersAfter": report.parameters_after,
        "macsBefore": report.macs_before,
        "macsAfter": report.macs_after,
        "barriers": dict(Counter(f"{barrier.operator}: {barrier.reason}" for barrier in report.barriers)),
    }
    exactness = prove_exact(module, captured, compressed, samples[:PROOF_SAMPLES])
    return record | {
        "float64Difference": exactness.float64_difference,
        "float32Difference": exactness.float32_difference,
        "float32OwnError": exactness.float32_own_error,
        "outcome": "exact" if exactness.holds else "INEXACT",
        "peakMemoryMiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _fitting_samples(module: nn.Module, seed: int) -> torch.Tensor:
    """Inputs of the smallest size that the net takes."""
    refusal: Exception | None = None
    for size in SIZES:
        samples = torch.randn(SAMPLES, 3, size, size, generator=torch.Generator().manual_seed(seed))
        try:
            with torch.no_grad():
                module(samples[:2])
        except Exception as error:  # each architecture refuses a small image in its own way
            refusal = error
        else:
            return samples
    raise ValueError(f"it takes no image of {SIZES}") from refusal


def main() -> None:
    """Answer lines until there are no more."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        name, seed = line.split()
        try:
            with contextlib.redirect_stdout(sys.stderr):
                record = measure(name, seed=int(seed))
        except Exception as error:  # a failure is a result: it is shown in the table
            traceback.print_exc()
            text = " ".join(str(error).split())[:300]
            record = {"architecture": name, "outcome": "FAILED", "reason": f"{type(error).__name__}: {text}"}
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
