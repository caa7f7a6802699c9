"""Repository check: ``python -m edgefolio_edge.check REPOSITORY MODEL``.

Run as a Job for a ModelPortfolio without a source, which serves what others publish. Pointer and manifest are
verified, and every variant must have a file that a runtime may open (:mod:`edgefolio.untrusted.model_file`, which skips
weights). The files' digests are verified by the agents, which fetch them. The result goes into the container's
termination message; the operator pins its digest in the portfolio's status. Exit codes: 0 found; 1 not.
"""

from __future__ import annotations

import argparse
import sys

from edgefolio.contract.job_report import FailureReport, PublishedReport, write_termination_message
from edgefolio.errors import EXIT_FAILURE, EXIT_OK, IntegrityError, UserError
from edgefolio.manifest import Manifest
from edgefolio.repository import Repository, layout
from edgefolio.repository.signature import VerificationKey, parsed_key
from edgefolio.repository.skipping import SkippingStream
from edgefolio.repository.version_files import published_plan
from edgefolio.untrusted.model_file import check_onnx

_FIELD = "spec.repository.uri"
#: How many of the newest revisions are searched for a digest.
_REVISIONS_SEARCHED = 20


def look(
    uri: str,
    model: str,
    *,
    revision: int | None = None,
    manifest_digest: str | None = None,
    verification_key: VerificationKey | None = None,
) -> PublishedReport | FailureReport:
    """Find a published revision of ``model``: the current one, or the one with this number or digest.

    Raises nothing: errors become the report.
    """
    try:
        repository = Repository.open(uri, field=_FIELD, verification_key=verification_key)
        found = _found(repository, model, revision, manifest_digest)
        if isinstance(found, str):
            return FailureReport(kind="Nothing", field=_FIELD, problem=found)
        number, digest = found
        manifest = repository.manifest(model, number, sha256=digest)
        _require_files(repository, manifest)
    except IntegrityError as error:
        return FailureReport.of(error).model_copy(update={"kind": "Refused"})
    except Exception as error:
        return FailureReport.of(error)
    try:
        return PublishedReport.of(manifest, digest=digest)
    except Exception as error:  # figures that no status holds
        broken = IntegrityError(
            f"its figures cannot be reported: {type(error).__name__}.",
            location=repository.location(layout.manifest_path(model, number)),
        )
        return FailureReport.of(broken).model_copy(update={"kind": "Refused"})


def _found(repository: Repository, model: str, revision: int | None, digest: str | None) -> tuple[int, str] | str:
    """Number and digest of the requested revision, or a message that it is missing."""
    layout.checked_model(model)
    pointer = repository.current(model)
    if digest is not None:
        if pointer is not None and pointer.manifest_sha256 == digest:
            return pointer.revision, digest  # needs no right to list
        for number in reversed(repository.revisions(model)[-_REVISIONS_SEARCHED:]):
            if repository.digest_of_manifest(model, number) == digest:
                return number, digest
        return f"model {model!r} has no revision whose manifest has the digest {digest} here."
    if revision is not None and (pointer is None or pointer.revision != revision):
        # The pointer verifies the current revision alone; an older one is trusted as found.
        standing = repository.digest_of_manifest(model, revision)
        return (revision, standing) if standing is not None else f"model {model!r} has no revision {revision} here."
    if pointer is None:
        return f"nothing is published here for model {model!r} yet."
    return pointer.revision, pointer.manifest_sha256


def _require_files(repository: Repository, manifest: Manifest) -> None:
    """Raise :class:`IntegrityError` if a variant lacks a file, or has one that no runtime may open."""
    for variant in manifest.variants:
        path = layout.variant_path(manifest.model, variant.file)
        if variant.split is None:
            _require_onnx(repository, path, size=variant.size_bytes)
            continue
        for shard in published_plan(repository.storage, manifest.model, variant).shards:
            for segment in shard.segments:
                _require_onnx(repository, layout.beside(path, segment.file), size=segment.size_bytes)


def _require_onnx(repository: Repository, path: str, *, size: int) -> None:
    try:
        with SkippingStream(repository.storage, path) as stream:
            check_onnx(stream, size=size, location=repository.location(path))
    except FileNotFoundError as error:
        raise IntegrityError("the file is missing.", location=repository.location(path)) from error


def main(arguments: list[str]) -> int:
    """Run the check; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m edgefolio_edge.check", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("repository", help="URI of the repository")
    parser.add_argument("model", help="whose revision is looked at")
    parser.add_argument("--revision", type=int, help="this one instead of the current one")
    parser.add_argument("--manifest-digest", help="the one with this digest instead of the current one")
    parser.add_argument("--verification-key", help="the public key that must have signed it")
    parsed = parser.parse_args(arguments)
    report: PublishedReport | FailureReport
    try:
        key = parsed_key(parsed.verification_key, field="spec.repository.verificationKey")
    except UserError as error:
        report = FailureReport.of(error)
    else:
        report = look(
            parsed.repository,
            parsed.model,
            revision=parsed.revision,
            manifest_digest=parsed.manifest_digest,
            verification_key=key,
        )
    write_termination_message(report)
    return EXIT_OK if isinstance(report, PublishedReport) else EXIT_FAILURE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
