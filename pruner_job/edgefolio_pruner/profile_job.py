"""Measure a published revision as a Kubernetes Job: ``python -m edgefolio_pruner.profile_job REPOSITORY MODEL``.

The same measurement as ``edgefolio profile``, on the node that the Job was scheduled to. A profile of its class that is
there already is reported, not measured again. The termination message carries the digest of the profile and its
figures, or what must be fixed. A node that serves is never idle: how busy it was is said, and refuses nothing. Exit
codes: 0 measured, or there already; 2 bad input; 1 anything else, and a retry may help.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from edgefolio.contract.job_report import FailureReport, ProfiledReport, write_termination_message
from edgefolio.contract.log_format import log_as_json
from edgefolio.errors import EXIT_BAD_INPUT, EXIT_FAILURE, EXIT_OK
from edgefolio.node_profile import PublishedProfile
from edgefolio_pruner.job import LoggedProgress

_FIELD = "spec.repository.uri"
logger = logging.getLogger(__name__)


def measure(parsed: argparse.Namespace) -> ProfiledReport:
    """Measure and publish, or find what is there. Raises what the parts raise."""
    from edgefolio.repository import Repository
    from edgefolio.repository.profiles import publish_profile
    from edgefolio.repository.signature import parsed_key, signing_key
    from edgefolio_pruner.profiling.revision import (
        RevisionToProfile,
        busy_percent,
        profile_revision,
        profile_there,
        require_publishable,
    )

    key = parsed_key(parsed.verification_key, field="spec.repository.verificationKey")
    repository = Repository.open(parsed.repository, field=_FIELD, verification_key=key)
    wanted = RevisionToProfile.numbered(repository, parsed.model, parsed.revision, sha256=parsed.manifest_digest)
    sign = signing_key(None, field="--sign")
    there, problem = profile_there(repository, wanted, threads=wanted.threads, signing_key=sign)
    if there is not None:
        return ProfiledReport.of(wanted.manifest, there, note=_note(there))
    if problem is not None:
        logger.warning("the profile is measured anew: %s", problem)
    require_publishable(repository, wanted.manifest, signing_key=sign)
    with tempfile.TemporaryDirectory(prefix="edgefolio-profile-") as folder:
        profile = profile_revision(
            repository,
            wanted,
            threads=wanted.threads,
            samples=parsed.samples,
            rounds=parsed.rounds,
            work_directory=Path(folder),
            busy=busy_percent(),
            progress=LoggedProgress(),
        )
    publish_profile(repository, profile, replace=True, signing_key=sign)
    published = PublishedProfile.of(profile)
    return ProfiledReport.of(wanted.manifest, published, note=_note(published))


def _note(published: PublishedProfile) -> str:
    from edgefolio_pruner.profiling.revision import was_busy

    profile = published.profile
    if not was_busy(profile):
        return ""
    return (
        f"The machine was busy: others used {profile.busy_percent:.0f} % of it before, rounds differ by up to "
        f"{min(profile.spread_percent, 9999):.0f} %."
    )


def main(arguments: list[str]) -> int:
    """Run the Job; its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m edgefolio_pruner.profile_job", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("repository", help="URI of the repository")
    parser.add_argument("model", help="whose revision is measured")
    parser.add_argument("--revision", type=int, required=True, help="its number")
    parser.add_argument("--manifest-digest", required=True, help="sha256 of its manifest")
    parser.add_argument("--samples", type=int, default=200, help="measurements per variant and batch")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds they are spread over")
    parser.add_argument("--verification-key", help="the public key that must have signed it")
    parsed = parser.parse_args(arguments)
    log_as_json(level=logging.WARNING)
    try:
        report = measure(parsed)
    except Exception as error:
        failure = FailureReport.of(error)
        if failure.kind == "Failed":
            logger.exception("the measurement failed")
        write_termination_message(failure)
        return EXIT_BAD_INPUT if failure.kind == "BadInput" else EXIT_FAILURE
    write_termination_message(report)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
