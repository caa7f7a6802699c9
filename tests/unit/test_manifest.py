"""The manifest: canonical bytes, strict reading, and a published schema that is not stale."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edgefolio.errors import IntegrityError
from edgefolio.manifest import Accuracy, CurrentPointer, Manifest, Tensor, manifest_schema, sha256_of

DIGEST = "ab" * 32
SCHEMA = Path(__file__).parents[2] / "docs/reference/manifest.schema.json"

SEGMENTS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)
NUMBERS = st.floats(0.001, 1e6)
#: Without control characters, signs that turn the direction of writing, and separators of lines.
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cf", "Zl", "Zp")), min_size=1, max_size=20)


def accuracy(percent: float = 90.0) -> dict[str, Any]:
    return {"percent": percent, "lowPercent": 85.0, "highPercent": 95.0, "samples": 1000}


def tensor(name: str, values: list[float]) -> dict[str, Any]:
    return {"name": name, "shape": [1, len(values)], "values": values}


def variant(rank: int, *, revision: int = 3, name: str | None = None, mean: float = 2.0) -> dict[str, Any]:
    return {
        "name": name or f"variant-{rank}",
        "rank": rank,
        "file": f"{revision * 100 + rank}/model.onnx",
        "sha256": DIGEST,
        "sizeBytes": 1000,
        "parent": None,
        "method": "dense",
        "settings": {"macsPercent": 50},
        "opset": 18,
        "irVersion": 9,
        "parameters": 10,
        "macs": 100,
        "validationAccuracy": accuracy(),
        "testAccuracy": accuracy(),
        "parity": {"maxAbsoluteDifference": 0.0, "maxAbsoluteLogit": 3.0, "top1AgreementPercent": 100, "samples": 256},
        "exactness": None,
        "layers": [{"name": "conv1", "before": 16, "after": 8}],
        "profiles": [
            {
                "environment": {
                    "cpuModel": "cpu",
                    "logicalCpus": 2,
                    "threads": 1,
                    "onnxruntimeVersion": "1",
                    "platform": "linux-x86_64",
                },
                "latencies": [
                    {
                        "batchSize": 8,
                        "meanMilliseconds": mean,
                        "p50Milliseconds": mean,
                        "p95Milliseconds": 2 * mean,
                        "samples": 200,
                    }
                ],
                "loadMilliseconds": 10.0,
                "memoryPeakBytes": 1000,
                "memorySteadyBytes": 900,
            }
        ],
        "probe": {"inputs": [tensor("x", [1.0])], "outputs": [tensor("y", [0.5, 0.5])], "absoluteTolerance": 1e-3},
    }


def manifest(*, count: int = 2, revision: int = 3, **changes: Any) -> dict[str, Any]:
    document = {
        "schemaVersion": "edgefolio.dev/manifest/v1",
        "model": "toy",
        "revision": revision,
        "created": "2026-01-01T00:00:00Z",
        "edgefolioVersion": "0",
        "specification": {"seed": 1},
        "specificationSha256": DIGEST,
        "seed": 1,
        "source": "timm:resnet18",
        "sourceSha256": None,
        "data": {
            "trainingUri": "builtin:digits",
            "trainingSha256": DIGEST,
            "validationSha256": DIGEST,
            "testSha256": DIGEST,
            "trainingSamples": 10,
            "validationSamples": 10,
            "testSamples": 10,
        },
        "labels": ["cat", "dög"],
        "preprocessing": {"scale": 1.0, "mean": [0.5], "std": [0.5], "layout": "NCHW"},
        "signature": {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [2]}],
            "maxBatchSize": 64,
        },
        "software": {"torch": "2"},
        "requestBatchSize": 8,
        "variants": [variant(rank, revision=revision) for rank in range(1, count + 1)],
    }
    return {**document, **changes}


def parsed(document: dict[str, Any]) -> Manifest:
    return Manifest.from_bytes(json.dumps(document).encode(), location="s3://bucket/3.json")


@settings(max_examples=100, deadline=None)
@given(
    model=SEGMENTS,
    labels=st.lists(TEXTS, max_size=5),
    means=st.lists(NUMBERS, min_size=1, max_size=5),
    revision=st.integers(1, 2**24),
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=5),
    software=st.dictionaries(TEXTS, TEXTS, max_size=3),
)
def test_what_is_written_is_what_is_read(
    model: str, labels: list[str], means: list[float], revision: int, values: list[float], software: dict[str, str]
) -> None:
    document = manifest(model=model, labels=labels, revision=revision, software=software)
    document["variants"] = [variant(rank, revision=revision, mean=mean) for rank, mean in enumerate(means, start=1)]
    document["variants"][0]["probe"]["inputs"] = [tensor("x", values)]
    first = parsed(document)
    raw = first.to_bytes()
    again = Manifest.from_bytes(raw, location="x")
    assert again == first
    assert again.to_bytes() == raw
    assert sha256_of(again.to_bytes()) == sha256_of(raw)
    assert json.loads(raw)["variants"][0]["probe"]["inputs"][0]["values"] == values


def test_bytes_are_canonical() -> None:
    document = manifest()
    turned = dict(reversed(document.items()))
    assert parsed(document).to_bytes() == parsed(turned).to_bytes()
    raw = parsed(document).to_bytes()
    assert raw.endswith(b"}\n")
    assert "dög".encode() in raw


def test_versions_never_meet() -> None:
    first, second = parsed(manifest(count=16, revision=3)), parsed(manifest(count=16, revision=4))
    numbers = [each.version_of(entry) for each in (first, second) for entry in each.variants]
    assert numbers[0] == 301
    assert len(set(numbers)) == 32
    assert first.variant("variant-2").rank == 2
    with pytest.raises(KeyError):
        first.variant("nobody")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"model": "../escape"}, "model"),
        ({"model": "a/b"}, "model"),
        ({"revision": 0}, "revision"),
        ({"surprise": 1}, "surprise"),
        ({"seed": "one"}, "seed"),
        ({"variants": []}, "variants"),
        ({"specificationSha256": "xyz"}, "specificationSha256"),
        ({"requestBatchSize": 0}, "requestBatchSize"),
        ({"variants": [variant(2)]}, "manifest"),
        ({"variants": [variant(1), variant(2, name="variant-1")]}, "manifest"),
        ({"variants": [variant(1, revision=4)]}, "manifest"),
    ],
)
def test_a_manifest_that_breaks_its_schema_is_refused_with_the_place(change: dict[str, Any], where: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        parsed(manifest(**change))
    assert f"at {where}:" in caught.value.problem
    assert caught.value.location == "s3://bucket/3.json"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("file",), "../../etc/passwd"),
        (("file",), "301/config.pbtxt"),
        (("file",), "/301/model.onnx"),
        (("name",), "a/b"),
        (("name",), ".."),
        (("sha256",), DIGEST.upper()),
        (("sizeBytes",), 0),
        (("rank",), 100),
        (("profiles",), []),
        (("profiles", 0, "loadMilliseconds"), math.nan),
        (("profiles", 0, "latencies", 0, "meanMilliseconds"), 0),
        (("profiles", 0, "latencies", 0, "meanMilliseconds"), math.inf),
        (("profiles", 0, "memoryPeakBytes"), -1),
        (("testAccuracy", "percent"), 101),
        (("probe", "absoluteTolerance"), 0),
        (("probe", "inputs", 0, "shape"), [3]),
    ],
)
def test_a_variant_that_breaks_its_schema_is_refused(path: tuple[str | int, ...], value: object) -> None:
    document = manifest()
    target: Any = document["variants"][0]
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = value
    with pytest.raises(IntegrityError, match=r"variants\.0|no JSON number"):
        parsed(document)


@pytest.mark.parametrize("raw", [b"", b"\xff", b"{", b"[" * 100_000, b"nonsense"])
def test_what_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(IntegrityError, match="JSON"):
        Manifest.from_bytes(raw, location="x")


@pytest.mark.parametrize("raw", [b"{}", b"[]", b"null", b'{"schemaVersion": "edgefolio.dev/manifest/v3"}'])
def test_another_schema_version_is_named(raw: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"schema version .*edgefolio\.dev/manifest/v1") as caught:
        Manifest.from_bytes(raw, location="x")
    assert "the edgefolio that wrote it" in caught.value.remedy


@settings(max_examples=100, deadline=None)
@given(samples=st.integers(1, 10**6), data=st.data())
def test_the_wilson_interval_holds_the_share(samples: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, samples))
    found = Accuracy.from_counts(correct=correct, samples=samples)
    assert 0 <= found.low_percent <= found.percent <= found.high_percent <= 100


@pytest.mark.parametrize("samples", [1, 10, 13, 25, 48, 2000, 19_999])
def test_the_wilson_interval_ends_at_a_share_of_nothing_and_of_all(samples: int) -> None:
    assert Accuracy.from_counts(correct=0, samples=samples).low_percent == 0
    assert Accuracy.from_counts(correct=samples, samples=samples).high_percent == 100


def test_the_wilson_interval_is_the_one_in_the_books() -> None:
    # 81 of 263: Wilson (0.2553, 0.3662), R. G. Newcombe, Statistics in Medicine 17 (1998), table I.
    found = Accuracy.from_counts(correct=81, samples=263)
    assert found.low_percent == pytest.approx(25.53, abs=0.01)
    assert found.high_percent == pytest.approx(36.62, abs=0.01)


def test_a_tensor_is_full() -> None:
    assert Tensor(name="x", shape=(2, 2), values=(1, 2, 3, 4)).shape == (2, 2)
    with pytest.raises(ValidationError, match="3 values do not fill"):
        Tensor(name="x", shape=(2, 2), values=(1, 2, 3))


def test_a_pointer_is_strict() -> None:
    pointer = CurrentPointer(model="toy", revision=1, manifest_sha256=DIGEST)
    assert CurrentPointer.model_validate_json(pointer.model_dump_json(by_alias=True)) == pointer
    with pytest.raises(ValidationError):
        CurrentPointer(model="toy", revision=1, manifest_sha256="short")
    with pytest.raises(ValidationError):
        CurrentPointer(model="../toy", revision=1, manifest_sha256=DIGEST)


def test_the_published_schema_is_not_stale() -> None:
    published = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert published == manifest_schema(), "run: make docs"


def test_the_published_schema_names_every_field_of_a_manifest() -> None:
    schema = manifest_schema()
    figures = {"balancedAccuracyPercent": 90.0, "lowestRecallPercent": 80.0, "lowestClass": 1}
    document = manifest(classSamples={"training": [5, 5], "validation": [5, 5], "test": [5, 5]}, notes=["One line."])
    document["variants"][0]["testClasses"] = figures | {"recallPercents": [100.0, 80.0]}
    document["score"] = {
        "task": "Regression",
        "metric": "MAE",
        "word": "MAE",
        "better": "Lower",
        "unit": "PercentOfDense",
    }
    score = {"value": 0.5, "low": 0.4, "high": 0.6}
    document["variants"][0] |= {"validationScore": score, "testScore": score}
    written = json.loads(parsed(document).to_bytes())
    assert set(written) == set(schema["properties"])
    assert {"model", "revision", "variants", "specificationSha256"} <= set(schema["required"])
    assert schema["additionalProperties"] is False
    inner = schema["$defs"]["Variant"]
    # What float variants leave out, so that older readers take their manifests.
    assert set(inner["properties"]) - set(written["variants"][0]) == {"precision", "quantization", "split"}
    assert set(written["variants"][0]) <= set(inner["properties"])
    assert not {"precision", "quantization", "split"} & set(inner["required"])
