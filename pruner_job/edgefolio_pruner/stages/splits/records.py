"""Stored plans of a split: what the work directory keeps beside their files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgefolio.manifest import (
    Accuracy,
    ClassFigures,
    ParityProof,
    Probe,
    QuantizationRecord,
    Record,
    ScoreFigures,
)
from edgefolio.records.split_plan import SplitPlan
from edgefolio.repository.fetching import digest_of_file
from edgefolio.repository.version_files import plan_at
from edgefolio.specification.splitting import Split
from edgefolio_split.executor import SplitExecutor

__all__ = ["PLAN_FILE", "MadeEntry", "MadePlan", "PlanRecord", "RefusedPlan"]

PLAN_FILE = "plan.json"


class PlanRecord(Record):
    """A stored plan: a manifest's variant without rank, profiles and test accuracy."""

    label: str
    title: str
    sha256: str
    size_bytes: int
    opset: int
    ir_version: int
    dense_bytes: int
    validation_accuracy: Accuracy
    validation_classes: ClassFigures | None
    validation_score: ScoreFigures | None = None
    parity: ParityProof
    quantization: QuantizationRecord | None = None
    probe: Probe


@dataclass(frozen=True)
class MadePlan:
    """A stored plan and the folder of its files."""

    record: PlanRecord
    folder: Path

    @property
    def path(self) -> Path:
        """The plan's file."""
        return self.folder / PLAN_FILE

    def plan(self) -> SplitPlan:
        """The plan."""
        return plan_at(self.path)

    def executor(self, *, threads: int = 1) -> SplitExecutor:
        """The reference executor of its shards."""
        return SplitExecutor(self.plan(), lambda name: (self.folder / name).read_bytes(), threads=threads)

    def is_whole(self) -> bool:
        """Whether all of its files are there and undamaged."""
        try:
            if digest_of_file(self.path) != self.record.sha256:
                return False
            return all(digest_of_file(self.folder / file.file) == file.sha256 for file in self.plan().files)
        except OSError:
            return False


class RefusedPlan(Record):
    """A plan that has no quantized form, and the accuracy of its float form."""

    title: str
    refused: str
    accuracy_percent: float

    @property
    def reason(self) -> str:
        """Both as a sentence without its end."""
        return f"no plan has an int8 form; of {self.title}: {self.refused}"[:500]


@dataclass(frozen=True)
class MadeEntry:
    """The plans of one entry of ``methods.split``, and what is to be told of them."""

    entry: Split
    name: str
    plans: tuple[MadePlan, ...]
    notes: tuple[str, ...]
    refused: tuple[RefusedPlan, ...] = ()
