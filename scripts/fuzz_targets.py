"""Targets of the fuzzer: what reads untrusted bytes, and valid bytes to begin with.

A target may refuse its bytes with the error that its callers expect; any other exception is a finding. What it tests is
imported within it: coverage is measured in modules that are loaded under the fuzzer.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Drafts of manifests and profiles, for targets and seeds.
sys.path.insert(0, str(ROOT / "tests" / "shared"))
#: Longer inputs only cost time: what is long is refused by its length.
LONGEST_BYTES = 1 << 16


def fuzz_manifest(raw: bytes) -> bool:
    """A manifest, and all that an agent makes of it."""
    from edgefolio.errors import IntegrityError
    from edgefolio.manifest import Manifest
    from edgefolio_edge.models.rehearsal import require_usable

    try:
        manifest = Manifest.from_bytes(raw, location="fuzz")
        require_usable(manifest, location="fuzz")
    except IntegrityError:
        return False
    if Manifest.from_bytes(manifest.to_bytes(), location="fuzz") != manifest:
        raise AssertionError("what is written is not what is read")
    return True


def fuzz_profile(raw: bytes) -> bool:
    """A profile of a class of processors, and a decision with it: whatever it says, the core decides."""
    from drafts import draft_of

    from edgefolio.decision import decide, profiles_from_manifest
    from edgefolio.decision.types import Objectives, Observation, ServerState, State
    from edgefolio.errors import IntegrityError
    from edgefolio.manifest import PublishedManifest
    from edgefolio.node_profile import PublishedProfile
    from edgefolio.specification.serving import Switching

    manifest = draft_of({"small": b"a", "large": b"bb"})
    try:
        profile = PublishedProfile.from_bytes(raw, location="fuzz").profile
        profile.require_of(manifest, manifest_sha256=PublishedManifest.of(manifest).sha256, location="fuzz")
    except IntegrityError:
        return False
    decision, _ = decide(
        observation=Observation(active_variant=None, resident_variants=(), server=ServerState.SERVING),
        objectives=Objectives(latency_p95_milliseconds=20),
        profiles=profiles_from_manifest(manifest, measured=profile),
        switching=Switching(),
        state=State(),
        now=0.0,
    )
    if decision.target not in ("small", "large"):
        raise AssertionError("a profile kept the core from deciding")
    return True


def fuzz_pointer(raw: bytes) -> bool:
    """The pointer of a repository."""
    from edgefolio.errors import IntegrityError
    from edgefolio.manifest import CurrentPointer

    try:
        CurrentPointer.from_bytes(raw, location="fuzz")
    except IntegrityError:
        return False
    return True


def fuzz_model(raw: bytes) -> bool:
    """A model file. One that is accepted names no other file, as ONNX's own parser reads it."""
    import onnx
    from google.protobuf.message import DecodeError

    from edgefolio.errors import IntegrityError
    from edgefolio.untrusted.model_file import check_onnx

    try:
        check_onnx(io.BytesIO(raw), size=len(raw), location="fuzz")
        model = onnx.ModelProto.FromString(raw)
    except (IntegrityError, DecodeError):
        return False
    tensors = [*model.graph.initializer]
    for node in model.graph.node:
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
    if any(tensor.external_data or tensor.data_location for tensor in tensors) or model.graph.sparse_initializer:
        raise AssertionError("a file outside was let through")
    return True


def fuzz_network(raw: bytes) -> bool:
    """An ONNX file as the source: the network built of it answers as ONNX Runtime does, or it is refused."""
    from edgefolio.errors import UserError
    from edgefolio_pruner.onnx_source.model_file import read_model_file

    with tempfile.NamedTemporaryFile(suffix=".onnx", dir="/dev/shm") as file:
        file.write(raw)
        file.flush()
        try:
            found = read_model_file(file.name, field="fuzz")
            if found.sample_shape is None:
                return False
            found.proven(found.sample_shape).build()
        except UserError:
            return False
    return True


def fuzz_state(raw: bytes) -> bool:
    """The state that an agent keeps on disk."""
    from edgefolio.decision import state_from_json

    try:
        state_from_json(raw.decode(errors="replace"))
    except ValueError:
        return False
    return True


def fuzz_trace(raw: bytes) -> bool:
    """A decision trace, replayed and shown as ``edgefolio replay`` shows it."""
    from edgefolio.commands.replay import _document
    from edgefolio.decision.recording.replay import replay
    from edgefolio.decision.recording.traces import parse_trace
    from edgefolio.errors import UserError

    try:
        trace = parse_trace(raw.decode(errors="replace").split("\n"))
    except UserError:
        return False
    result = replay(trace)
    json.dumps(_document(trace, result, result.differences()), allow_nan=False)
    return True


def fuzz_portfolio(raw: bytes) -> bool:
    """A ModelPortfolio file of a user, and the key of what it makes."""
    from edgefolio.contract.making_key import making_key
    from edgefolio.errors import UserError
    from edgefolio.specification.loading import parse_portfolio

    try:
        portfolio = parse_portfolio(raw.decode(errors="replace"))
    except UserError as error:
        if not str(error).replace("\n", "").isprintable():
            raise AssertionError("the error controls a terminal") from error
        return False
    making_key(portfolio.spec)
    return True


def fuzz_orders(raw: bytes) -> bool:
    """A ModelEndpoint's orders, as an agent reads them back from its disk."""
    from edgefolio.specification.endpoint import EndpointSpecification
    from edgefolio.specification.validation.tolerant import understood

    try:
        understood(EndpointSpecification, json.loads(raw))
    except (ValueError, TypeError, RecursionError):
        return False
    return True


def fuzz_status(raw: bytes) -> bool:
    """A stored ModelEndpoint's status, as the operator and the decision core use it."""
    from edgefolio.contract.endpoint_report import observation_of, state_of
    from edgefolio.decision.state import sanitized
    from edgefolio.specification.endpoint import EndpointStatus
    from edgefolio.specification.serving import Switching

    try:
        status = EndpointStatus.model_validate(json.loads(raw))
    except (ValueError, RecursionError):
        return False
    observation_of(status, now=1.8e9)
    sanitized(state_of(status.decision), now=1.8e9, switching=Switching())
    return True


def fuzz_report(raw: bytes) -> bool:
    """The last words of a Job's pod, and its log."""
    from edgefolio.contract.job_report import ProgressLine, report_of_message

    text = raw.decode(errors="replace")
    ProgressLine.newest_in(text)
    return report_of_message(text) is not None


def fuzz_metrics(raw: bytes) -> bool:
    """The text of a Triton's metrics."""
    from edgefolio_edge.observation.triton_metrics import p95_in

    found = p95_in(raw.decode(errors="replace"), model="a", version=101)
    if found is not None and not 0 < found < float("inf"):
        raise AssertionError(f"p95 of {found} ms")
    return found is not None


def fuzz_npz(raw: bytes) -> bool:
    """Data of a stranger in one file."""
    from edgefolio.errors import UserError
    from edgefolio_pruner.data.arrays.converting import Request
    from edgefolio_pruner.data.readers.npz import read_npz

    with tempfile.NamedTemporaryFile(suffix=".npz", dir="/dev/shm") as file:
        file.write(raw)
        file.flush()
        try:
            read_npz(Request(uri=file.name, needed="train", field="fuzz"))
        except UserError:
            return False
    return True


def fuzz_picture(raw: bytes) -> bool:
    """One picture of a stranger, brought to the size of a network's input."""
    from fsspec.implementations.memory import MemoryFileSystem

    from edgefolio.errors import UserError
    from edgefolio_pruner.data.pictures import PictureSize, read_pictures

    files = MemoryFileSystem()
    files.pipe_file("/picture", raw)
    try:
        read_pictures(files, {"/picture": files.info("/picture")}, size=PictureSize.of(8), field="fuzz")
    except UserError:
        return False
    return True


#: Each says whether it understood the bytes.
TARGETS: dict[str, Callable[[bytes], bool]] = {
    "manifest": fuzz_manifest,
    "profile": fuzz_profile,
    "pointer": fuzz_pointer,
    "model": fuzz_model,
    "network": fuzz_network,
    "state": fuzz_state,
    "trace": fuzz_trace,
    "portfolio": fuzz_portfolio,
    "orders": fuzz_orders,
    "status": fuzz_status,
    "report": fuzz_report,
    "metrics": fuzz_metrics,
    "npz": fuzz_npz,
    "picture": fuzz_picture,
}


def seeds() -> dict[str, list[bytes]]:
    """Bytes to begin with, by target; the first ones of each are valid."""
    from draft_profiles import EPYC, draft_node_profile
    from drafts import as_model, draft_of
    from model_file_threats import plain, threats

    draft = draft_of({"small": b"a", "large": b"bb"})
    pointer = b'{"schemaVersion": "edgefolio.dev/pointer/v1", "model": "a", "revision": 1, "manifestSha256": "%s"}'
    models = [plain().SerializeToString(), *(raw for raw, _ in threats().values() if 0 < len(raw) < LONGEST_BYTES)]
    traces = sorted((ROOT / "tests" / "decision" / "traces").glob("*.jsonl"))
    return {
        "manifest": [draft.to_bytes()],
        "profile": [draft_node_profile(draft, EPYC).to_bytes()],
        "pointer": [pointer % (b"0" * 64)],
        "model": [as_model(b"weights"), *models],
        "network": [*_networks(), *models],
        "state": [(ROOT / "tests" / "edge" / "stored" / "decision.json").read_bytes()],
        "trace": [b"\n".join(path.read_bytes().splitlines()[:20]) for path in traces],
        "portfolio": [path.read_bytes() for path in sorted((ROOT / "examples").glob("*.yaml"))],
        "orders": [(ROOT / "tests" / "edge" / "stored" / "orders.json").read_bytes()],
        "status": [_endpoint_status()],
        "report": _job_messages(),
        "metrics": [b'nv_inference_request_summary_us{model="a",version="101",quantile="0.95"} 2500\n'],
        "npz": _npz_files(),
        "picture": _pictures(),
    }


def _networks() -> list[bytes]:
    from onnx_graphs import small_networks

    return [found.SerializeToString() for found in small_networks().values()]


def _endpoint_status() -> bytes:
    from played_reports import holding_decision, steady_observation

    from edgefolio.contract.endpoint_report import report_of_decision, report_of_observation
    from edgefolio.decision.types import Quarantine, State
    from edgefolio.specification.endpoint import EndpointStatus

    observation = steady_observation("a", compute_milliseconds=2.0)
    state = State(recent_switches=(1.8e9,), quarantined=(Quarantine(variant="a", until=1.8e9, failures=1, cause="x"),))
    return (
        EndpointStatus(
            active_variant="a",
            observation=report_of_observation(observation, now=1.8e9, valid_seconds=60),
            decision=report_of_decision(holding_decision(), state, decided_by_agent=True),
        )
        .model_dump_json(by_alias=True, exclude_none=True)
        .encode()
    )


def _job_messages() -> list[bytes]:
    from draft_profiles import EPYC, draft_node_profile
    from drafts import draft_of

    from edgefolio.contract.job_report import FailureReport, ProfiledReport, PublishedReport
    from edgefolio.node_profile import PublishedProfile

    draft = draft_of({"small": b"a", "large": b"bb"})
    published = PublishedReport.of(draft, digest="0" * 64)
    profiled = ProfiledReport.of(draft, PublishedProfile.of(draft_node_profile(draft, EPYC)))
    messages = [published.to_message().encode(), profiled.to_message().encode()]
    return [*messages, FailureReport(kind="BadInput", problem="x").to_message().encode()]


def _npz_files() -> list[bytes]:
    import numpy as np

    found = []
    for save, names in ((np.savez, {}), (np.savez_compressed, {"class_names": np.array(["a", "b"])})):
        file = io.BytesIO()
        save(file, x=np.zeros((2, 1, 2, 2), np.float32), y=np.arange(2), **names)
        found.append(file.getvalue())
    return found


def _pictures() -> list[bytes]:
    from PIL import Image

    found = []
    for kind, mode in [("PNG", "RGB"), ("JPEG", "L"), ("GIF", "P"), ("BMP", "1"), ("TIFF", "I;16"), ("WEBP", "RGBA")]:
        file = io.BytesIO()
        Image.new(mode, (5, 3)).save(file, kind)
        found.append(file.getvalue())
    return found
