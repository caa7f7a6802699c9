"""Peak memory of making a portfolio of torchvision's VGG-16 by one-shot pruning, told to stay within 4 GiB.

    python -m benchmarks.large_network --folder /tmp/vgg --results benchmarks/results/large-network.json

The weights are random but for the last layer, which is fitted to pictures of 64 pixels in four classes, so that the
look at given weights lets them pass. ``edgefolio make`` runs in a process of its own, on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from safetensors.torch import save_file

CLASSES, SAMPLES, SIDE = 4, 160, 64
PORTFOLIO = """
apiVersion: edgefolio.dev/v1alpha1
kind: ModelPortfolio
metadata: {name: vgg}
spec:
  source:
    architecture: {library: torchvision, name: vgg16, options: {num_classes: 4}}
    weightsURI: ./w.safetensors
  data: {trainingURI: ./data.npz, calibrationSamples: 64}
  methods: {oneShot: {macsPercent: [50]}}
  profiling: {samples: 20, rounds: 2}
  repository: {uri: ./portfolios}
  serving: {modelName: vgg}
"""


def prepare(folder: Path) -> None:
    """Write data, weights and portfolio."""
    random = np.random.default_rng(0)
    patterns = random.normal(0, 1, (CLASSES, 8, 8, 3)).repeat(SIDE // 8, 1).repeat(SIDE // 8, 2)
    y = np.arange(SAMPLES) % CLASSES
    x = (patterns[y] * 40 + random.normal(0, 25, (SAMPLES, SIDE, SIDE, 3)) + 128).clip(0, 255).astype(np.uint8)
    np.savez(folder / "data.npz", x=x, y=y)
    torch.manual_seed(0)
    net = torchvision.models.vgg16(num_classes=CLASSES).eval()
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    images = torch.from_numpy(((x / 255 - mean) / deviation).transpose(0, 3, 1, 2).astype(np.float32))
    labels = torch.from_numpy(y)
    with torch.no_grad():
        parts = images.split(16)
        features = torch.cat([net.classifier[:6](net.avgpool(net.features(part)).flatten(1)) for part in parts])
    centre, scale = features.mean(0), features.std() + 1e-6
    head = torch.nn.Linear(features.shape[1], CLASSES)
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    for _ in range(200):
        loss = torch.nn.functional.cross_entropy(head((features - centre) / scale), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    last = net.classifier[6]
    with torch.no_grad():
        last.weight.copy_(head.weight / scale)
        last.bias.copy_(head.bias - (head.weight / scale) @ centre)
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, folder / "w.safetensors")
    (folder / "portfolio.yaml").write_text(PORTFOLIO)


def main() -> None:
    """Prepare, make, measure, write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--memory", default="4Gi")
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args()
    folder = arguments.folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # In a process of its own, so that the peak below is not its.
    code = f"from pathlib import Path; from benchmarks.large_network import prepare; prepare(Path({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    command = ["make", "-f", "portfolio.yaml", "--work-dir", "work", "--memory", arguments.memory, "--json"]
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "edgefolio.commands.main", *command],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")},
        stdout=(folder / "made.json").open("wb"),
    )
    _, status, usage = os.wait4(process.pid, 0)
    made = json.loads((folder / "made.json").read_text() or "{}")
    document = {
        "network": f"torchvision {torchvision.__version__} vgg16, {CLASSES} classes",
        "pictures": f"{SAMPLES} of {SIDE} x {SIDE}",
        "memoryTold": arguments.memory,
        "exitCode": os.waitstatus_to_exitcode(status),
        "variants": [variant["name"] for variant in made.get("variants", [])],
        "peakMebibytes": round(usage.ru_maxrss / 1024),
        "preparingPeakMebibytes": round(before / 1024),
        "seconds": round(time.perf_counter() - started),
        "loadAverage": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(document))
    if arguments.results is not None:
        arguments.results.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
