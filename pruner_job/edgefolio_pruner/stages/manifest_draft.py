"""Selection of variants from measured candidates, and the draft of the manifest."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from edgefolio import __version__
from edgefolio.contract.making_key import making_specification, specification_sha256
from edgefolio.manifest import (
    SCHEMA_VERSION,
    SPLIT_SCHEMA_VERSION,
    VERSIONS_PER_REVISION,
    Manifest,
    Profile,
    RejectedCandidate,
    Signature,
    TensorSignature,
    Variant,
)
from edgefolio.shown_text import printable, shortened
from edgefolio.specification import ModelPortfolio
from edgefolio_pruner.inputs import MakingSource
from edgefolio_pruner.methods import DENSE
from edgefolio_pruner.scoring import Measured
from edgefolio_pruner.stages.candidates import CandidateRecord
from edgefolio_pruner.stages.splits.choice import RejectedSplit
from edgefolio_pruner.stages.splits.members import SplitVariant
from edgefolio_pruner.stages.variant_selection import Candidate, SelectionResult, rules_of, select

#: Balanced accuracy that exceeds chance by a smaller part is a guess.
_NEAR_CHANCE = 0.1
_PACKAGES = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "numpy", "scipy", "scikit-learn")


def choose(
    candidates: Sequence[CandidateRecord],
    profiles: Mapping[str, Profile],
    portfolio: ModelPortfolio,
    *,
    class_names: Sequence[str],
    score: str = "accuracy",
) -> SelectionResult:
    """Select by validation accuracy, median latency of the request batch, and memory while serving.

    ``score`` is what the accuracy is called.
    """
    batch = portfolio.spec.profiling.batch_sizes[-1]
    measured = []
    for candidate in candidates:
        latency = profiles[candidate.name].latency(batch)
        assert latency is not None
        accuracy, classes = candidate.validation_accuracy, candidate.validation_classes
        measured.append(
            Candidate(
                name=candidate.name,
                accuracy_percent=accuracy.percent,
                accuracy_interval=(accuracy.low_percent, accuracy.high_percent),
                lowest_recall_percent=None if classes is None else classes.lowest_recall_percent,
                lowest_class="" if classes is None else class_names[classes.lowest_class],
                latency_milliseconds=latency.p50_milliseconds,
                memory_bytes=profiles[candidate.name].memory_steady_bytes,
            )
        )
    return select(measured, dense=DENSE, rules=rules_of(portfolio.spec.selection, score))


def chance_notes(candidates: Sequence[CandidateRecord]) -> list[str]:
    """What is to be told where the dense model is no better than the answer that is most often right."""
    dense = next((candidate for candidate in candidates if candidate.name == DENSE), None)
    if dense is None or dense.validation_classes is None:
        return []
    recalls = [recall for recall in dense.validation_classes.recall_percents if recall is not None]
    balanced = dense.validation_classes.balanced_accuracy_percent
    chance = 100 / max(1, len(recalls))
    if len(recalls) < 2 or balanced > chance * (1 + _NEAR_CHANCE):
        return []
    return [
        f"the dense model recognizes {balanced:.1f} % of each class on average, which is what a guess among "
        f"{len(recalls)} classes gives: its accuracy of {dense.validation_accuracy.percent:.1f} % says nothing of it"
    ]


def draft_manifest(
    *,
    portfolio: ModelPortfolio,
    source: MakingSource,
    candidates: Sequence[CandidateRecord],
    profiles: Mapping[str, Profile],
    choice: SelectionResult,
    duplicates: Mapping[str, str],
    left_out: Mapping[str, str],
    tested: Mapping[str, Measured],
    splits: Sequence[SplitVariant] = (),
    splits_rejected: Sequence[RejectedSplit] = (),
    notes: Sequence[str] = (),
) -> Manifest:
    """The manifest, as revision 1; publishing gives it a number.

    ``duplicates`` names candidates with the same file, ``left_out`` those that were no choice, with the reason.
    ``splits`` are ranked among the variants, and push none of them out.
    """
    by_name = {candidate.name: candidate for candidate in candidates}
    batch = portfolio.spec.profiling.batch_sizes[-1]
    # Equal accuracies are ordered by work and name, so that the ranks are the same each time.
    variants = [
        *(_variant(by_name[name], 1, profiles[name], tested[name]) for name in choice.chosen),
        *(split.variant(tested[split.name]) for split in splits),
    ]
    ranked = sorted(variants, key=lambda variant: (variant.validation_accuracy.percent, variant.macs, variant.name))
    rejected = [(rejection.name, rejection.reason) for rejection in choice.rejected]
    rejected += [(name, f"its file is the same as that of {other}") for name, other in duplicates.items()]
    rejected += left_out.items()
    specification = making_specification(portfolio.spec)
    first = by_name[choice.chosen[0]]
    shapes = first.output_shapes or ((first.outputs,),)
    return Manifest(
        schema_version=SPLIT_SCHEMA_VERSION if splits else SCHEMA_VERSION,
        model=portfolio.spec.serving.model_name,
        revision=1,
        created=datetime.now(UTC).replace(microsecond=0).isoformat(),
        edgefolio_version=__version__,
        specification=specification,
        specification_sha256=specification_sha256(specification),
        seed=portfolio.spec.seed,
        source=source.description,
        source_sha256=source.initial_digest,
        data=source.data.digests,
        labels=source.data.class_names,
        class_samples=source.data.class_samples,
        score=source.scoring.description(),
        preprocessing=source.data.preprocessing,
        signature=Signature(
            inputs=tuple(
                TensorSignature(name=name, datatype="FP32", shape=shape)
                for name, shape in source.data.input_shapes.items()
            ),
            outputs=tuple(
                TensorSignature(name=name, datatype="FP32", shape=shape)
                for name, shape in zip(source.output_names, shapes, strict=True)
            ),
        ),
        software=_software(),
        request_batch_size=batch,
        variants=tuple(ranked_as(variant, rank) for rank, variant in enumerate(ranked, start=1)),
        rejected=tuple(
            sorted(
                (
                    *(_rejected(name, reason, by_name, profiles, batch) for name, reason in rejected),
                    *(_rejected_split(split) for split in splits_rejected),
                ),
                key=lambda entry: (entry.name, entry.reason),
            )
        ),
        accuracy_floor_met=choice.accuracy_floor_met,
        reproduce="edgefolio make -f portfolio.yaml, with this manifest's specification as spec (and a repository and "
        "serving.modelName), on the same CPU model with the same software",
        notes=tuple(shortened(printable(note), 1000) for note in notes),
    )


def _variant(candidate: CandidateRecord, rank: int, profile: Profile, test: Measured) -> Variant:
    return Variant(
        name=candidate.name,
        rank=rank,
        file=f"{VERSIONS_PER_REVISION + rank}/model.onnx",
        sha256=candidate.sha256,
        size_bytes=candidate.size_bytes,
        parent=candidate.parent,
        method=candidate.method,
        settings=candidate.settings,
        opset=candidate.opset,
        ir_version=candidate.ir_version,
        parameters=candidate.parameters,
        macs=candidate.macs,
        validation_accuracy=candidate.validation_accuracy,
        test_accuracy=test.accuracy,
        test_classes=test.classes,
        validation_score=candidate.validation_score,
        test_score=test.score,
        parity=candidate.parity,
        exactness=candidate.exactness,
        layers=candidate.layers,
        precision=candidate.precision,
        quantization=candidate.quantization,
        profiles=(profile,),
        probe=candidate.probe,
    )


def ranked_as(variant: Variant, rank: int) -> Variant:
    """The variant with this rank, as that of revision 1."""
    version = VERSIONS_PER_REVISION + rank
    return variant.model_copy(update={"rank": rank, "file": f"{version}/{variant.file_name}"})


def _rejected_split(split: RejectedSplit) -> RejectedCandidate:
    return RejectedCandidate(
        name=split.name,
        reason=shortened(printable(split.reason), 500),
        validation_accuracy_percent=split.accuracy_percent,
    )


def _rejected(
    name: str, reason: str, by_name: Mapping[str, CandidateRecord], profiles: Mapping[str, Profile], batch: int
) -> RejectedCandidate:
    latency = profiles[name].latency(batch) if name in profiles else None
    return RejectedCandidate(
        name=name,
        reason=reason,
        validation_accuracy_percent=by_name[name].validation_accuracy.percent if name in by_name else None,
        p50_milliseconds=None if latency is None else latency.p50_milliseconds,
        p95_milliseconds=None if latency is None else latency.p95_milliseconds,
    )


def _software() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
