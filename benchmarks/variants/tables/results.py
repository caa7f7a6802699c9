"""The results file: rows with where and with what they were measured, and how the networks were trained."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnxruntime
from benchmarks.over_seeds import RESULTS
from benchmarks.variants.data import CALIBRATION_SAMPLES, TRAINING_SAMPLES
from benchmarks.variants.nets import NETS
from benchmarks.variants.tables.rows import Row
from benchmarks.variants.training.standstill import RULE, Trained

from edgefolio_pruner.profiling.environment import describe_environment
from edgefolio_pruner.training.checkpoint import read_json

Json = dict[str, Any]
PATH = RESULTS / "variants.json"
COMMAND = "python -m benchmarks.variants"


def setting() -> Json:
    """Machine, versions and sample counts: what rows of one file have in common."""
    environment = describe_environment(threads=1, onnxruntime_version=onnxruntime.__version__)
    packages = ("torch", "onnxruntime", "torch-pruning")
    return {
        "command": COMMAND,
        "machine": environment.model_dump(mode="json", by_alias=True),
        "versions": {name: _version(name) for name in packages},
        "trainingSamples": TRAINING_SAMPLES,
        "calibrationSamples": CALIBRATION_SAMPLES,
        "stopping": {"leastGainPoints": RULE.least_gain, "patienceEpochs": RULE.patience, "rates": RULE.rates},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise SystemExit(
            f"{package} is not installed, and the benchmark compares with it: pip install -c constraints.txt "
            "-e '.[benchmarks]'"
        ) from None


class Results:
    """The rows in the file, and those that this run adds or replaces.

    Rows that another machine or other versions measured are dropped: one file is one setting.
    """

    def __init__(self, path: Path = PATH, common: Json | None = None) -> None:
        self._path, self._common = path, json.loads(json.dumps(setting() if common is None else common))
        held = read_json(path) or {}
        same = all(held.get(name) == value for name, value in self._common.items())
        self._rows = [Row.read(row) for row in held["rows"]] if same and "rows" in held else []
        self._nets: Json = held.get("networks", {}) if same else {}

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows, in the order of the file."""
        return tuple(self._rows)

    def replace(self, claim: str, net: str, seed: int, rows: Iterable[Row]) -> None:
        """Put ``rows`` in the place of what the file has of this claim, network and seed, and write it."""
        kept = [row for row in self._rows if (row.claim, row.net, row.seed) != (claim, net, seed)]
        self._rows = sorted([*kept, *rows], key=lambda row: (row.claim, list(NETS).index(row.net), row.seed))
        self.write()

    def describe(self, name: str, seed: int, trained: Trained, *, test: float) -> None:
        """Record how a network was trained, and its accuracy."""
        record = trained.record
        self._nets.setdefault(name, {"title": NETS[name].title})[str(seed)] = {
            "epochs": record["standing"]["epoch"],
            "bestEpoch": record["standing"]["best_epoch"] + 1,
            "processorSeconds": round(record["seconds"]),
            "validationPercent": round(record["standing"]["best"], 3),
            "testPercent": test,
        }

    def document(self) -> Json:
        """The file's content."""
        return {**self._common, "networks": self._nets, "rows": [row.document() for row in self._rows]}

    def write(self) -> None:
        """Write the file in one rename."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self._path.with_suffix(".part")
        scratch.write_text(json.dumps(self.document(), indent=1) + "\n")
        scratch.replace(self._path)
