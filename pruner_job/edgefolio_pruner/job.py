"""A making as a Kubernetes Job: ``python -m edgefolio_pruner.job FILE WORK_DIRECTORY``.

The same pipeline as ``edgefolio make``. Progress goes to standard output as one JSON object per line; the last words
go into the container's termination message, where the operator reads what was published or what must be mended. Exit
codes: 0 published; 2 the input needs mending, another attempt would end the same; 1 anything else.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path

from edgefolio.errors import EXIT_BAD_INPUT, EXIT_FAILURE, EXIT_OK
from edgefolio.job_report import FailureReport, PublishedReport
from edgefolio.specification import load_portfolio

#: Where Kubernetes reads the termination message; the variable is for runs outside a pod.
TERMINATION_MESSAGE = "/dev/termination-log"
TERMINATION_MESSAGE_VARIABLE = "EDGEFOLIO_TERMINATION_MESSAGE"
_SECONDS_BETWEEN_LINES = 1.0


class LoggedProgress:
    """A :class:`~edgefolio_pruner.progress.Progress` that logs one JSON line a second, and each new stage at once."""

    def __init__(self) -> None:
        self._stage = ""
        self._logged_at = -_SECONDS_BETWEEN_LINES

    def __call__(self, *, stage: str, fraction: float, message: str) -> None:
        """Log where the work stands, unless that was just done."""
        now = time.monotonic()
        if stage == self._stage and now - self._logged_at < _SECONDS_BETWEEN_LINES and fraction < 1:
            return
        self._stage, self._logged_at = stage, now
        line = {"stage": stage, "percent": int(100 * fraction), "message": message}
        print(json.dumps(line, ensure_ascii=False), flush=True)


def run(file: Path, work_directory: Path) -> tuple[int, PublishedReport | FailureReport]:
    """Make what ``file`` says; the exit code and the last words."""
    try:
        portfolio = load_portfolio(file)
        from edgefolio_pruner.pipeline import make_portfolio

        result = make_portfolio(portfolio, work_directory=work_directory, progress=LoggedProgress())
    except Exception as error:
        report = FailureReport.of(error)
        if report.kind == "Failed":
            traceback.print_exc()
        return (EXIT_BAD_INPUT if report.kind == "BadInput" else EXIT_FAILURE), report
    pointer = result.published.pointer
    return EXIT_OK, PublishedReport.of(result.manifest, digest=pointer.manifest_sha256)


def main(arguments: list[str]) -> int:
    """Run the Job; its exit code."""
    if len(arguments) != 2:
        print("usage: python -m edgefolio_pruner.job FILE WORK_DIRECTORY", file=sys.stderr)
        return EXIT_BAD_INPUT
    exit_code, report = run(Path(arguments[0]), Path(arguments[1]))
    message = report.to_message()
    print(message, flush=True)
    path = Path(os.environ.get(TERMINATION_MESSAGE_VARIABLE, TERMINATION_MESSAGE))
    path.write_text(message, encoding="utf-8")
    return exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
