"""Splits that nobody planned: two workers of a tiny network, for tests that publish, verify or read one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from draft_manifests import draft_manifest, draft_profile, draft_variant
from onnx import TensorProto, helper

from edgefolio.manifest import (
    SPLIT_SCHEMA_VERSION,
    Manifest,
    Probe,
    Signature,
    Tensor,
    TensorSignature,
    Variant,
)
from edgefolio.records.split_member import MeasuredPlan, SplitExchange, SplitLink, SplitMember, SplitShard
from edgefolio.records.split_plan import Certificate, SplitPlan
from edgefolio_split.probes import with_probes


def segment(nodes: list[Any], inputs: list[str], outputs: list[str]) -> bytes:
    def values(names: list[str]) -> list[Any]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", None]) for name in names]

    graph = helper.make_graph(nodes, "model", values(inputs), values(outputs))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def node(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
    return helper.make_node(kind, inputs, outputs, **attributes)


def two_workers() -> dict[str, bytes]:
    """Each worker owns two of four channels of the input's negative, and gets one from the other."""
    files = {}
    for rank in range(2):
        other, low = 1 - rank, 2 * rank
        picked = [
            node("Constant", [], ["from"], value_ints=[low]),
            node("Constant", [], ["to"], value_ints=[low + 2]),
            node("Constant", [], ["axis"], value_ints=[1]),
            node("Slice", ["input", "from", "to", "axis"], ["mine"]),
            node("Neg", ["mine"], ["x0_own"]),
            node("Constant", [], ["zero"], value_ints=[0]),
            node("Gather", ["x0_own", "zero"], [f"x0_to_{other}"], axis=1),
        ]
        files[f"shard-{rank}/segment-0.onnx"] = segment(picked, ["input"], ["x0_own", f"x0_to_{other}"])
        joined = [
            node("Concat", ["x0_own", f"x0_from_{other}"], ["all"], axis=1),
            node("Constant", [], ["one"], value_ints=[1]),
            node("ReduceMax", ["all", "one"], ["output"], keepdims=1),
        ]
        files[f"shard-{rank}/segment-1.onnx"] = segment(joined, ["x0_own", f"x0_from_{other}"], ["output"])
    return files


def document(files: dict[str, bytes]) -> dict[str, Any]:
    shards = []
    for rank in range(2):
        segments = [
            {
                "file": name,
                "depth": depth,
                "sha256": hashlib.sha256(files[name]).hexdigest(),
                "sizeBytes": len(files[name]),
            }
            for depth, name in enumerate(f"shard-{rank}/segment-{number}.onnx" for number in range(2))
        ]
        shards.append({"rank": rank, "segments": segments, "parameters": 0, "macs": 0})
    transfers = [
        {"sender": 0, "receiver": 1, "slots": [0], "sent": "x0_to_1", "received": "x0_from_0"},
        {"sender": 1, "receiver": 0, "slots": [2], "sent": "x0_to_0", "received": "x0_from_1"},
    ]
    exchange = {
        "name": "x0",
        "place": "layer",
        "kind": "send",
        "depth": 1,
        "elements": 1,
        "owners": [0, 0, 1, 1],
        "transfers": transfers,
    }
    return {
        "schemaVersion": "edgefolio.dev/split-plan/v1",
        "workers": 2,
        "sharesPercent": [50, 50],
        "layout": "Channels",
        "wire": "Float32",
        "input": "input",
        "outputs": ["output"],
        "combination": ["First"],
        "exchanges": [exchange],
        "shards": shards,
    }


SAMPLE = np.array([[1, 2, 3, 4]], dtype=np.float32)
_PROBE = Probe(
    inputs=(Tensor(name="input", shape=(1, 4), values=(1.0, 2.0, 3.0, 4.0)),),
    outputs=(Tensor(name="output", shape=(1, 1), values=(-1.0,)),),
    absolute_tolerance=0.001,
)


def whole_model() -> bytes:
    """What the two workers compute together, as one file."""
    nodes = [
        node("Neg", ["input"], ["negative"]),
        node("Constant", [], ["one"], value_ints=[1]),
        node("ReduceMax", ["negative", "one"], ["output"], keepdims=1),
    ]
    return segment(nodes, ["input"], ["output"])


def planned(files: dict[str, bytes] | None = None, **fields: Any) -> tuple[SplitPlan, dict[str, bytes]]:
    """The plan of the two workers with probes and a certificate, and all files; ``fields`` replace what it says."""
    files = two_workers() if files is None else files
    certificate = Certificate(relative_error=0, certified_percent=100, agreement_percent=100, samples=8)
    plan = SplitPlan.model_validate(document(files)).model_copy(update={"certificate": certificate, **fields})
    plan, probes = with_probes(plan, files.__getitem__, SAMPLE)
    return plan, {**files, **probes}


def split_variant(name: str, rank: int, plan: SplitPlan, raw: bytes | None = None) -> Variant:
    """The variant of a plan, whose published bytes may be ``raw``."""
    shards = tuple(
        SplitShard(
            rank=shard.rank,
            size_bytes=shard.size_bytes,
            parameters=shard.parameters,
            macs=shard.macs,
            profiles=(draft_profile(),),
        )
        for shard in plan.shards
    )
    assert plan.certificate is not None
    member = SplitMember(
        workers=2,
        shares_percent=plan.shares_percent,
        layout=plan.layout,
        wire=plan.wire,
        input_bytes=16,
        synchronisations=1,
        exchanges=(SplitExchange(place="layer", depth=1, bytes_into=(4, 4), dense_bytes_into=(8, 8)),),
        dense_bytes=16,
        link=SplitLink(bits_per_second=1e9, round_trip_milliseconds=0.5),
        shards=shards,
        certificate=plan.certificate,
        own_milliseconds=1.5,
        predicted_milliseconds=2.0,
        least_bits_per_second=1e6,
        plans=(
            MeasuredPlan(
                title="channels, 50 %", bytes_into_busiest=4, predicted_milliseconds=2.0, validation_percent=80.0
            ),
            MeasuredPlan(
                title="channels, 0 %", bytes_into_busiest=0, predicted_milliseconds=1.0, validation_percent=60.0
            ),
        ),
    )
    raw = plan.to_bytes() if raw is None else raw
    return draft_variant(
        name, rank, raw, percent=80.0, file=f"{100 + rank}/plan.json", split=member, opset=18, probe=_PROBE
    )


@dataclass(frozen=True)
class SplitDraft:
    """A draft with a split, and where its files lie."""

    manifest: Manifest
    files: dict[str, Path]


def split_draft(
    folder: Path,
    *,
    model: str = "digits",
    created: str = "2026-01-01T00:00:00Z",
    plan: SplitPlan | None = None,
    files: dict[str, bytes] | None = None,
    raw: bytes | None = None,
) -> SplitDraft:
    """A draft of one model for one node and of a split of it, written below ``folder``."""
    if plan is None:
        plan, files = planned()
    assert files is not None
    whole = whole_model()
    (folder / "whole").mkdir(parents=True)
    (folder / "whole" / "model.onnx").write_bytes(whole)
    for name, content in {**files, "plan.json": plan.to_bytes() if raw is None else raw}.items():
        path = folder / "split" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    variants = [
        split_variant("split-two", 1, plan, raw),
        draft_variant("dense", 2, whole, opset=18, probe=_PROBE),
    ]
    signature = Signature(
        inputs=(TensorSignature(name="input", datatype="FP32", shape=(4,)),),
        outputs=(TensorSignature(name="output", datatype="FP32", shape=(1,)),),
    )
    manifest = draft_manifest(
        variants, model=model, created=created, signature=signature, schema_version=SPLIT_SCHEMA_VERSION
    )
    return SplitDraft(manifest, {"split-two": folder / "split" / "plan.json", "dense": folder / "whole" / "model.onnx"})
