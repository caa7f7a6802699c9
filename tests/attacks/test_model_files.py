"""Threat: a model file that reads other files, runs others' code, or never ends, in whatever opens it."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from model_file_threats import plain, threats
from onnx import helper, numpy_helper
from triton_portfolios import MODEL, publish, revealing_model

from edgefolio.contract.job_report import FailureReport
from edgefolio.errors import IntegrityError
from edgefolio.manifest import CurrentPointer, Manifest, sha256_of
from edgefolio.repository import Repository
from edgefolio.untrusted.model_file import check_onnx
from edgefolio.untrusted.onnx_fields import MESSAGES
from edgefolio_edge.check import look
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.repository_audit import verify_repository
from edgefolio_edge.models.synchronizer import Synchronizer
from edgefolio_edge.reasons import REVISION_REFUSED

THREATS = threats()
WHOLE = revealing_model(1, width=4)
#: One of each kind, for what takes longer.
SOME = ("weights at ../../../server.json", "sparse constant", "Loop", "own domain", "truncated")


def check(raw: bytes) -> None:
    check_onnx(io.BytesIO(raw), size=len(raw), location="model.onnx")


def replace_files(folder: Path, manifest: Manifest, raw: bytes) -> Manifest:
    """Publish ``manifest`` again with ``raw`` as every file, as whoever may write the repository can."""
    variants = tuple(
        variant.model_copy(update={"sha256": sha256_of(raw), "size_bytes": len(raw)}) for variant in manifest.variants
    )
    for variant in variants:
        path = folder / "models" / manifest.model / variant.file
        path.unlink()
        path.write_bytes(raw)
    changed = manifest.model_copy(update={"variants": variants})
    revisions = folder / "revisions" / manifest.model
    (revisions / f"{manifest.revision}.json").write_bytes(changed.to_bytes())
    pointer = CurrentPointer(
        model=manifest.model, revision=manifest.revision, manifest_sha256=sha256_of(changed.to_bytes())
    )
    (revisions / "current.json").write_text(pointer.model_dump_json(by_alias=True))
    return changed


@pytest.mark.parametrize("name", THREATS)
def test_it_is_refused_before_a_runtime_opens_it(name: str) -> None:
    raw, words = THREATS[name]
    with pytest.raises(IntegrityError, match=words) as caught:
        check(raw)
    assert str(caught.value).isprintable()


def test_what_is_made_here_is_accepted() -> None:
    check(WHOLE)
    # Others' exporters name operator sets that no node uses, and describe the file.
    model = plain(domain="com.microsoft")
    model.metadata_props.add(key="author", value="us")
    model.graph.node[0].overload = ""
    check(model.SerializeToString())


def test_quantized_weights_of_the_standard_domain_are_accepted() -> None:
    scale, zero = numpy_helper.from_array(np.float32(0.1), "scale"), numpy_helper.from_array(np.int8(0), "zero")
    quantize = helper.make_node("QuantizeLinear", ["logits", "scale", "zero"], ["q"])
    back = helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["x"])
    check(plain([quantize, back], [scale, zero]).SerializeToString())


def test_every_field_of_onnx_is_allowed_or_refused_by_name() -> None:
    """A newer ONNX whose fields are not known here fails this test, and its files are refused meanwhile."""
    seen = {}
    waiting: list[tuple[str, Any]] = [("Model", onnx.ModelProto.DESCRIPTOR)]
    wires = {1: 1, 2: 5, 3: 0, 4: 0, 5: 0, 9: 2, 11: 2, 12: 2, 13: 0, 14: 0}  # by protocol buffers' types
    while waiting:
        name, descriptor = waiting.pop()
        if name in seen:
            continue
        seen[name] = descriptor
        assert set(MESSAGES[name]) == {field.number for field in descriptor.fields}, name
        for field in descriptor.fields:
            allowed = MESSAGES[name][field.number]
            if isinstance(allowed, frozenset):
                assert allowed == {wires[field.type], *([2] if field.is_repeated else [])}, (name, field.name)
            elif not allowed.startswith("!"):
                waiting.append((allowed, field.message_type))
    assert set(seen) == set(MESSAGES)


@pytest.mark.parametrize("name", SOME)
def test_an_agent_refuses_the_revision_and_takes_the_next(tmp_path: Path, name: str) -> None:
    repository, store = tmp_path / "portfolios", ModelStore(tmp_path / "state", model=MODEL)
    first = publish(repository, [revealing_model(1)])
    synchronizer = Synchronizer(lambda: Repository.open(str(repository)), store)
    assert synchronizer.step().complete
    replace_files(repository, publish(repository, [revealing_model(2)]), THREATS[name][0])
    synced = synchronizer.step()
    assert synced.manifest == first
    assert synced.refusal is not None
    assert (synced.refusal.revision, synced.refusal.reason) == (2, REVISION_REFUSED)
    assert not list((tmp_path / "state").rglob("2*/model.onnx")), "nothing of it is left"
    third = publish(repository, [revealing_model(3)])
    synced = synchronizer.step()
    assert (synced.manifest, synced.complete, synced.refusal) == (third, True, None)


def test_a_file_that_an_earlier_agent_put_on_disk_is_refused(tmp_path: Path) -> None:
    repository, store = tmp_path / "portfolios", ModelStore(tmp_path / "state", model=MODEL)
    manifest = publish(repository, [revealing_model(1)])
    Synchronizer(lambda: Repository.open(str(repository)), store).step()
    raw = THREATS["weights at ../../../server.json"][0]
    changed = replace_files(repository, manifest, raw)
    store.path_of(manifest, manifest.variants[0]).write_bytes(raw)
    assert not ModelStore(tmp_path / "state", model=MODEL).has(changed, changed.variants[0])
    with pytest.raises(IntegrityError, match="missing or damaged"):
        store.require(changed, changed.variants[0])


@pytest.mark.parametrize("name", SOME)
def test_verify_and_the_check_job_find_it(tmp_path: Path, name: str) -> None:
    repository = tmp_path / "portfolios"
    replace_files(repository, publish(repository, [revealing_model(1)]), THREATS[name][0])
    (finding,) = verify_repository(Repository.open(str(repository))).all_findings
    assert "variant-1: the model is refused" in finding.problem
    report = look(str(repository), MODEL)
    assert isinstance(report, FailureReport)
    assert report.kind == "Refused"
    assert "the model is refused" in report.problem


def test_the_check_job_skips_weights(tmp_path: Path) -> None:
    repository = tmp_path / "portfolios"
    publish(repository, [revealing_model(1)])
    assert look(str(repository), MODEL).kind == "Published"


class NoRanges(io.BytesIO):
    """What a web server without ranges gives."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: Any) -> int:
        raise io.UnsupportedOperation


def test_a_stream_is_read_forwards(tmp_path: Path) -> None:
    check_onnx(NoRanges(WHOLE), size=len(WHOLE), location="x")
    with pytest.raises(IntegrityError, match="truncated"):
        check_onnx(NoRanges(WHOLE[:-2000]), size=len(WHOLE), location="x")


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_a_mutant_is_refused_or_harmless(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from([WHOLE, *(THREATS[name][0] for name in THREATS if "many" not in name)])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw)))
        change = data.draw(st.sampled_from(["set", "cut", "insert", "copy"]))
        if change == "set" and at < len(raw):
            raw[at] = data.draw(st.integers(0, 255))
        elif change == "cut":
            del raw[at : at + data.draw(st.integers(1, 40))]
        elif change == "insert":
            raw[at:at] = data.draw(st.binary(min_size=1, max_size=12))
        else:
            raw[at:at] = raw[at : at + data.draw(st.integers(1, 200))]
    try:
        check(bytes(raw))
    except IntegrityError:
        return
    try:
        model = onnx.ModelProto.FromString(bytes(raw))
    except DecodeError:
        return  # a text that is no UTF-8
    assert not model.functions
    assert not model.training_info
    assert not model.graph.sparse_initializer
    assert all(node.domain in ("", "ai.onnx") and not node.overload for node in model.graph.node)
    tensors = list(model.graph.initializer)
    for node in model.graph.node:
        for attribute in node.attribute:
            assert not attribute.HasField("g")
            assert not attribute.graphs
            assert not attribute.HasField("sparse_tensor")
            tensors += [attribute.t, *attribute.tensors]
    assert not any(tensor.external_data or tensor.data_location for tensor in tensors)


def test_weights_are_skipped() -> None:
    large = onnx.TensorProto(name="large", data_type=1, dims=[1 << 22], raw_data=bytes(1 << 24))
    raw = plain(tensors=[large]).SerializeToString()
    stream = io.BytesIO(raw)
    tracemalloc.start()
    try:
        check_onnx(stream, size=len(raw), location="x")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
