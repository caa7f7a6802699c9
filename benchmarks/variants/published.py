"""A portfolio by `edgefolio make` from the trained network: sparse levels, one-shot, int8; published to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from benchmarks.variants.bench import Bench
from benchmarks.variants.store import PRODUCT, digest_of_code

from edgefolio.repository.fetching import digest_of_file
from edgefolio.specification import ModelPortfolio
from edgefolio_pruner.pipeline import make_portfolio

Json = dict[str, Any]
#: Each level drops 40 % of the weights that are left; after seven 2.8 % are.
LEVELS, EPOCHS_PER_LEVEL, PRUNE_PERCENT = 7, 2, 40
MACS_PERCENTS = (75, 50, 35, 25)


def portfolio(bench: Bench) -> Json:
    """What was published, and the files of the sparsest level: ``variants`` with their paths, ``sparsest``."""
    return bench.store.stage(
        "portfolio",
        lambda: _made(bench),
        code=PRODUCT,
        levels=[LEVELS, EPOCHS_PER_LEVEL, PRUNE_PERCENT],
        macs=list(MACS_PERCENTS),
    )


def document(bench: Bench, *, data: Path, weights: Path) -> Json:
    """The ModelPortfolio that is made."""
    return {
        "apiVersion": "edgefolio.dev/v1alpha1",
        "kind": "ModelPortfolio",
        "metadata": {"name": bench.name},
        "spec": {
            "source": {
                "architecture": bench.net.architecture.model_dump(mode="json", by_alias=True),
                "weightsURI": str(weights),
            },
            "data": {
                "trainingURI": str(data),
                "normalization": {"mean": ["0"], "standardDeviation": ["1"]},
            },
            "methods": {
                "sparseTraining": {
                    "denseEpochs": 0,
                    "levels": LEVELS,
                    "epochsPerLevel": EPOCHS_PER_LEVEL,
                    "prunePercent": PRUNE_PERCENT,
                    "learningRate": f"{bench.net.rate:g}",
                    "optimizer": bench.net.optimizer,
                    "batchSize": 64,
                    "augmentation": bench.net.augmentation,
                },
                "oneShot": {"macsPercent": list(MACS_PERCENTS)},
                "quantization": {"precision": "Int8"},
            },
            "profiling": {"threads": 1, "batchSizes": [1, 32]},
            "seed": bench.seed,
            "repository": {"uri": str(bench.store.folder / "repository")},
            "serving": {"modelName": bench.name},
        },
    }


def found_file(folder: Path, sha256: str) -> Path:
    """The published file with this digest."""
    return next(path for path in (folder / "repository").rglob("*.onnx") if digest_of_file(path) == sha256)


def _made(bench: Bench) -> Json:
    folder = bench.store.folder
    data, weights = folder / "data.npz", folder / "dense.safetensors"
    parts = {"train": bench.data.train, "validation": bench.data.validation, "test": bench.data.test}
    arrays = {f"x_{name}": part.images for name, part in parts.items()}
    np.savez(data, **arrays, **{f"y_{name}": part.labels for name, part in parts.items()})
    safetensors.torch.save_file(bench.trained.state, weights)
    # A work directory for each state of the code: its own keys know versions, not changes.
    work = folder / f"make-{digest_of_code(PRODUCT)[:12]}"
    result = make_portfolio(
        ModelPortfolio.model_validate(document(bench, data=data, weights=weights)), work_directory=work, threads=1
    )
    sparse = sorted(work.glob("train-*/levels/sparse-*.json"), key=lambda path: int(path.stem.split("-")[-1]))
    # Every level is a candidate, published or not.
    return {
        "variants": [
            {
                "name": variant.name,
                "sha256": variant.sha256,
                "path": str(found_file(folder, variant.sha256)),
                "testPercent": variant.test_accuracy.percent,
            }
            for variant in result.manifest.variants
        ],
        "levels": {
            path.stem: {
                "state": str(path.with_suffix(".safetensors")),
                "files": {
                    name: str(found[0])
                    for name in (path.stem, f"{path.stem}-int8")
                    if (found := list(work.glob(f"*-{name}-????????????????/model.onnx")))
                },
            }
            for path in sparse
        },
    }
