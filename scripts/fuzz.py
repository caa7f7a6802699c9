"""Coverage-guided fuzzer of untrusted inputs (atheris, libFuzzer): ``scripts/fuzz.py --minutes 60 [TARGET ...]``.

Each target gets an equal share of the time in a process of its own, and its corpus in ``build/fuzz/TARGET`` grows from
run to run. A target may refuse its bytes with the error that its callers expect; any other exception is a finding, kept
beside the corpus, and ends that target. Exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "fuzz"
#: Longer inputs only cost time: what is long is refused by its length.
LONGEST_BYTES = 1 << 16


def fuzz_manifest(raw: bytes) -> None:
    """A manifest, and all that an agent makes of it."""
    from edgefolio.errors import IntegrityError
    from edgefolio.manifest import Manifest
    from edgefolio_edge.models.rehearsal import require_usable

    try:
        manifest = Manifest.from_bytes(raw, location="fuzz")
        require_usable(manifest, location="fuzz")
    except IntegrityError:
        return
    if Manifest.from_bytes(manifest.to_bytes(), location="fuzz") != manifest:
        raise AssertionError("what is written is not what is read")


def fuzz_pointer(raw: bytes) -> None:
    """The pointer of a repository."""
    from edgefolio.errors import IntegrityError
    from edgefolio.manifest import CurrentPointer

    try:
        CurrentPointer.from_bytes(raw, location="fuzz")
    except IntegrityError:
        return


def fuzz_model(raw: bytes) -> None:
    """A model file. One that is accepted names no other file, as ONNX's own parser reads it."""
    import onnx
    from google.protobuf.message import DecodeError

    from edgefolio.errors import IntegrityError
    from edgefolio.untrusted.model_file import check_onnx

    try:
        check_onnx(io.BytesIO(raw), size=len(raw), location="fuzz")
        model = onnx.ModelProto.FromString(raw)
    except (IntegrityError, DecodeError):
        return
    tensors = [*model.graph.initializer]
    for node in model.graph.node:
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
    if any(tensor.external_data or tensor.data_location for tensor in tensors) or model.graph.sparse_initializer:
        raise AssertionError("a file outside was let through")


def fuzz_state(raw: bytes) -> None:
    """The state that an agent keeps on disk."""
    from edgefolio.decision import state_from_json

    try:
        state_from_json(raw.decode(errors="replace"))
    except ValueError:
        return


TARGETS: dict[str, Callable[[bytes], None]] = {
    "manifest": fuzz_manifest,
    "pointer": fuzz_pointer,
    "model": fuzz_model,
    "state": fuzz_state,
}


def seeds() -> dict[str, list[bytes]]:
    """Something valid to begin with, by target."""
    sys.path.insert(0, str(ROOT / "tests" / "shared"))
    from drafts import as_model, draft_of
    from model_file_threats import plain, threats

    manifest = draft_of({"small": b"a", "large": b"bb"}).to_bytes()
    pointer = b'{"schemaVersion": "edgefolio.dev/pointer/v1", "model": "a", "revision": 1, "manifestSha256": "%s"}'
    models = [plain().SerializeToString(), *(raw for raw, _ in threats().values() if len(raw) < LONGEST_BYTES)]
    return {
        "manifest": [manifest],
        "pointer": [pointer % (b"0" * 64)],
        "model": [as_model(b"weights"), *models],
        "state": [(ROOT / "tests" / "edge" / "stored" / "decision.json").read_bytes()],
    }


def run_target(name: str, seconds: int) -> None:
    """Fuzz one target in this process, which libFuzzer ends."""
    import atheris

    # Before anything else imports it: modules are instrumented when they are loaded.
    with atheris.instrument_imports(include=["edgefolio", "edgefolio_edge"]):
        TARGETS[name](b"")
    corpus = BUILD / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, raw in enumerate(seeds()[name]):
        (corpus / f"seed-{number}").write_bytes(raw)
    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST_BYTES}", f"-artifact_prefix={corpus}-", "-timeout=20"]
    atheris.Setup(
        [sys.argv[0], *options, "-rss_limit_mb=2048", "-verbosity=0", "-print_final_stats=1", str(corpus)],
        TARGETS[name],
    )
    atheris.Fuzz()


def main() -> int:
    """Run the targets one after the other; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("targets", nargs="*", default=list(TARGETS), metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--minutes", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--only", choices=TARGETS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    seconds = max(1, round(options.minutes * 60 / len(options.targets)))
    if options.only is not None:
        run_target(options.only, round(options.minutes * 60))
        return 0
    found = []
    for name in options.targets:
        print(f"fuzz: {name} for {seconds} s", flush=True)
        command = [sys.executable, __file__, "--only", name, "--minutes", str(seconds / 60)]
        if subprocess.run(command).returncode:
            found.append(name)
    print("fuzz: nothing found" if not found else f"fuzz: findings in {', '.join(found)}, beside {BUILD}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
