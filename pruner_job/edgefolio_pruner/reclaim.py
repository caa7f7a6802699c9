"""Delete what a portfolio published: ``python -m edgefolio_pruner.reclaim REPOSITORY MODEL``.

Run as a Job when a ModelPortfolio with ``reclaimPolicy: Delete`` is deleted. It deletes the revisions of this model and
nothing else; killed and restarted it resumes.
"""

from __future__ import annotations

import argparse
import sys

from edgefolio.contract.job_report import FailureReport, write_termination_message
from edgefolio.errors import EXIT_FAILURE, EXIT_OK
from edgefolio.repository import Repository
from edgefolio.repository.removal import remove_model

_FIELD = "spec.repository.uri"


def main(arguments: list[str]) -> int:
    """Delete; return the exit code. Every failure is worth a retry."""
    parser = argparse.ArgumentParser(
        prog="python -m edgefolio_pruner.reclaim", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("repository", help="URI of the repository")
    parser.add_argument("model", help="whose revisions are deleted")
    parsed = parser.parse_args(arguments)
    try:
        removed = remove_model(Repository.open(parsed.repository, field=_FIELD), parsed.model)
    except Exception as error:
        write_termination_message(FailureReport.of(error))
        return EXIT_FAILURE
    print(f"deleted: revisions {', '.join(map(str, removed)) or 'none'} of model {parsed.model!r}", flush=True)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
