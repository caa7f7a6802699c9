"""Run the operator: ``python -m edgefolio_operator``; settings come from the environment."""

from __future__ import annotations

import logging
import sys

import kopf

from edgefolio.contract.log_format import log_as_json
from edgefolio.errors import UserError
from edgefolio_operator.app import App
from edgefolio_operator.settings import Settings


def main() -> int:
    """Run until stopped; return the exit code."""
    try:
        settings = Settings.of()
    except UserError as error:
        print(f"error: {error.one_line()}", file=sys.stderr)
        return error.exit_code
    log_as_json(level=logging.INFO)
    kopf.run(
        registry=App(settings).registry,
        standalone=True,
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
        liveness_endpoint=f"http://0.0.0.0:{settings.probe_port}/healthz" if settings.probe_port else None,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
