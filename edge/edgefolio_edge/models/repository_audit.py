"""Audit of a repository: pointers, manifests, files, ONNX, probes and profiles.

A file is given to the runtime only if its digest is right, and both :mod:`edgefolio.untrusted.model_file` and ONNX's
checker accept it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx

from edgefolio.errors import IntegrityError, TransientError, UserError
from edgefolio.manifest import CurrentPointer, Manifest, TensorSignature, Variant
from edgefolio.repository import Repository, layout
from edgefolio.repository.profiles import wrong_profiles
from edgefolio.shown_text import printable
from edgefolio.untrusted.model_file import OnnxSummary, check_onnx_file
from edgefolio_edge.models.probe import mismatch, probe_inputs
from edgefolio_edge.models.rehearsal import require_usable
from edgefolio_edge.models.split_audit import split_problems

#: Newest versions that deployed Tritons read.
MAXIMUM_OPSET = 18
MAXIMUM_IR_VERSION = 9
_DATATYPES = {
    onnx.TensorProto.BOOL: "BOOL",
    onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.INT16: "INT16",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.UINT8: "UINT8",
    onnx.TensorProto.UINT16: "UINT16",
    onnx.TensorProto.UINT32: "UINT32",
    onnx.TensorProto.UINT64: "UINT64",
    onnx.TensorProto.FLOAT16: "FP16",
    onnx.TensorProto.FLOAT: "FP32",
    onnx.TensorProto.DOUBLE: "FP64",
    onnx.TensorProto.BFLOAT16: "BF16",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A problem, and the path or URI where it is."""

    location: str
    problem: str

    def __post_init__(self) -> None:
        # Strangers' names and runtimes' messages about them are quoted here.
        object.__setattr__(self, "location", printable(self.location))
        object.__setattr__(self, "problem", printable(self.problem))


@dataclass(frozen=True, kw_only=True)
class VerifiedRevision:
    """Audit of one revision; ``variants`` names those whose files passed every check."""

    model: str
    revision: int
    is_current: bool
    variants: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Audit of a repository."""

    uri: str
    revisions: tuple[VerifiedRevision, ...]
    findings: tuple[Finding, ...]

    @property
    def all_findings(self) -> tuple[Finding, ...]:
        """Those of the repository, then of each revision."""
        return (*self.findings, *(finding for revision in self.revisions for finding in revision.findings))

    @property
    def is_sound(self) -> bool:
        """Whether there is no finding."""
        return not self.all_findings


def verify_repository(repository: Repository, *, model: str | None = None) -> Verification:
    """Check every revision of ``model``, or of all models. Problems are found, not raised.

    Raises :class:`UserError` if the repository cannot be read, or holds nothing (of this model).
    """
    if model is not None:
        layout.checked_model(model)
    revisions: list[VerifiedRevision] = []
    findings: list[Finding] = []
    found = 0
    for name in _names(repository) if model is None else (model,):
        numbers = _revisions(repository, name)
        pointer, problem = _pointer(repository, name, numbers)
        if pointer is None and problem is None:
            continue  # neither a pointer nor a manifest
        found += 1
        if problem is not None:
            findings.append(problem)
        elif pointer is not None and pointer.revision not in numbers:
            numbers = (*numbers, pointer.revision)
        for number in numbers:
            sha256 = pointer.manifest_sha256 if pointer is not None and pointer.revision == number else None
            revisions.append(_verify_revision(repository, name, number, sha256))
    if not found:
        raise _nothing(repository, model)
    return Verification(uri=repository.uri, revisions=tuple(revisions), findings=tuple(findings))


def _revisions(repository: Repository, model: str) -> tuple[int, ...]:
    """The listed revisions; none where nothing may be listed: the current one is still read by its name."""
    try:
        return repository.revisions(model)
    except TransientError:
        raise
    except UserError:
        return ()


def _pointer(
    repository: Repository, model: str, numbers: tuple[int, ...]
) -> tuple[CurrentPointer | None, Finding | None]:
    """The pointer of ``model``, and what is wrong with it; neither if nothing is published."""
    location = repository.location(layout.pointer_path(model))
    try:
        pointer = repository.current(model)
    except IntegrityError as error:
        return None, Finding(location=error.location, problem=error.problem)
    if pointer is None and numbers:
        return None, Finding(location=location, problem="the pointer is missing: no revision is current.")
    unlisted = pointer is not None and pointer.revision not in numbers
    if pointer is not None and unlisted and repository.digest_of_manifest(model, pointer.revision) is None:
        problem = f"it names revision {pointer.revision}, which has no manifest."
        return pointer, Finding(location=location, problem=problem)
    return pointer, None


def _names(repository: Repository) -> Iterator[str]:
    """What may be models: also those whose pointer was lost."""
    for name in repository.storage.names(layout.REVISIONS):
        try:
            yield layout.checked_model(name)
        except UserError:
            continue  # an entry whose name cannot be a model's


def _nothing(repository: Repository, model: str | None) -> UserError:
    if model is None:
        return UserError(
            "the repository holds no portfolio.",
            field="URI",
            value=repository.uri,
            remedy="Name the directory or bucket that `edgefolio make` published to.",
        )
    return UserError(
        f"nothing is published here for model {model!r}.",
        field="--model",
        value=model,
        remedy=f"Name one of: {', '.join(_names(repository)) or 'none'}.",
    )


def _verify_revision(repository: Repository, model: str, revision: int, sha256: str | None) -> VerifiedRevision:
    findings: list[Finding] = []
    passed: list[str] = []
    try:
        published = repository.published_manifest(model, revision, sha256=sha256)
        manifest = published.manifest
        require_usable(manifest, location=repository.location(layout.manifest_path(model, revision)))
    except IntegrityError as error:
        findings.append(Finding(location=error.location, problem=error.problem))
    else:
        for variant in manifest.variants:
            problems = list(_verify_variant(repository, manifest, variant))
            findings += [
                Finding(location=location, problem=f"variant {variant.name}: {text}") for location, text in problems
            ]
            if not problems:
                passed.append(variant.name)
        findings += [
            Finding(location=error.location, problem=error.problem) for error in wrong_profiles(repository, published)
        ]
    return VerifiedRevision(
        model=model,
        revision=revision,
        is_current=sha256 is not None,
        variants=tuple(passed),
        findings=tuple(findings),
    )


def _verify_variant(repository: Repository, manifest: Manifest, variant: Variant) -> Iterator[tuple[str, str]]:
    """Place and text of the problems of one variant."""
    with tempfile.TemporaryDirectory(prefix="edgefolio-verify-") as name:
        folder = Path(name)
        if variant.split is not None:
            newest = (MAXIMUM_OPSET, MAXIMUM_IR_VERSION)
            yield from split_problems(repository, manifest, variant, folder, newest=newest)
            return
        location = repository.location(layout.variant_path(manifest.model, variant.file))
        yield from ((location, text) for text in _file_problems(repository, manifest, variant, folder))


def _file_problems(repository: Repository, manifest: Manifest, variant: Variant, folder: Path) -> Iterator[str]:
    """The problems of a variant that is one file, as text."""
    try:
        path = repository.fetch(manifest, variant, folder / "model.onnx")
        summary = check_onnx_file(path)
    except IntegrityError as error:
        yield error.problem
        return
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except Exception as error:  # protobuf's own kinds
        yield f"it is no ONNX file ({type(error).__name__})."
        return
    problems = list(_model_problems(model, summary, manifest, variant))
    yield from problems
    if not problems:
        yield from _probe_problems(path, manifest, variant)


def _model_problems(
    model: onnx.ModelProto, summary: OnnxSummary, manifest: Manifest, variant: Variant
) -> Iterator[str]:
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker and shape inference raise several kinds
        yield f"ONNX's checker refuses it: {' '.join(str(error).split())[:300]}."
    opset, ir_version = summary.opset, summary.ir_version
    if (opset, ir_version) != (variant.opset, variant.ir_version):
        yield (
            f"it has opset {opset} and IR version {ir_version}, the manifest says {variant.opset} and "
            f"{variant.ir_version}."
        )
    if opset > MAXIMUM_OPSET or ir_version > MAXIMUM_IR_VERSION:
        yield (
            f"opset {opset} or IR version {ir_version} is newer than deployed Tritons read "
            f"({MAXIMUM_OPSET}, {MAXIMUM_IR_VERSION})."
        )
    weights = {initializer.name for initializer in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    yield from _signature_problems("input", inputs, manifest.signature.inputs)
    yield from _signature_problems("output", list(model.graph.output), manifest.signature.outputs)


def _signature_problems(
    kind: str, values: list[onnx.ValueInfoProto], expected: tuple[TensorSignature, ...]
) -> Iterator[str]:
    found = {value.name: value.type.tensor_type for value in values}
    if set(found) != {tensor.name for tensor in expected}:
        yield f"its {kind}s are {sorted(found)}, the manifest says {sorted(tensor.name for tensor in expected)}."
        return
    for tensor in expected:
        actual = found[tensor.name]
        datatype = _DATATYPES.get(actual.elem_type, f"type {actual.elem_type}")
        if datatype != tensor.datatype:
            yield f"{kind} {tensor.name!r} is {datatype}, the manifest says {tensor.datatype}."
        if not actual.HasField("shape"):
            continue
        sizes = [dimension.dim_value if dimension.HasField("dim_value") else -1 for dimension in actual.shape.dim]
        if not sizes or sizes[0] != -1:
            yield f"{kind} {tensor.name!r} has no dynamic batch axis."
        elif len(sizes) - 1 != len(tensor.shape) or any(
            size not in (-1, wanted) for size, wanted in zip(sizes[1:], tensor.shape, strict=True) if wanted != -1
        ):
            yield f"{kind} {tensor.name!r} has shape {sizes[1:]}, the manifest says {list(tensor.shape)}."


def _probe_problems(path: Path, manifest: Manifest, variant: Variant) -> Iterator[str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in variant.probe.outputs]
        answers = dict(zip(names, session.run(names, probe_inputs(manifest, variant.probe)), strict=True))
    except Exception as error:  # the runtime raises many kinds
        yield f"it cannot be run: {type(error).__name__}: {' '.join(str(error).split())[:300]}."
        return
    problem = mismatch(variant.probe, answers)
    if problem is not None:
        yield f"its answers to the probe are wrong: {problem}."
