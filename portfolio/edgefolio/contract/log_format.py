"""Format of the log lines of operator, agent and Job: one JSON object a line, with ``time`` in ISO 8601 and UTC."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from edgefolio.uris import redacted_document

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


def log_line(fields: Mapping[str, Any], *, seconds: float | None = None) -> str:
    """The line of ``fields``, logged at ``seconds`` since the epoch, by default now."""
    at = datetime.fromtimestamp(time.time() if seconds is None else seconds, UTC)
    written = at.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
    # Messages of libraries quote the URLs they asked for, signatures included.
    return printable_json({"time": written, **redacted_document(dict(fields))}, default=str)


def printable_json(document: Any, **options: Any) -> str:
    """``document`` as JSON on one line: readable letters as they are, all others escaped.

    JSON itself leaves C1 control characters, marks of direction and halves of surrogate pairs as they are.
    """
    text = json.dumps(document, ensure_ascii=False, **options)
    return text if text.isprintable() else _UNPRINTABLE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    letter = match[0]
    return letter if letter.isprintable() else json.dumps(letter)[1:-1]


class JsonLines(logging.Formatter):
    """Formatter of log records: ``level``, ``logger`` and ``message``, and a traceback in ``exception``."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        fields = {"level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return log_line(fields, seconds=record.created)


def log_as_json(*, level: int) -> None:
    """Write the records of all loggers from ``level`` up to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler])
