"""Run the operator: ``python -m edgefolio_operator``; settings come from the environment."""

from __future__ import annotations

import json
import logging
import sys

import kopf

from edgefolio.errors import UserError
from edgefolio_operator.app import App
from edgefolio_operator.settings import Settings


class JsonLines(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON, a traceback in ``exception``."""
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def main() -> int:
    """Run until stopped; the exit code."""
    try:
        settings = Settings.of()
    except UserError as error:
        print(f"error: {error.one_line()}", file=sys.stderr)
        return error.exit_code
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
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
