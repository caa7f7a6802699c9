"""Bounded reader of the agent's state files: a damaged one counts as absent and never ends the agent."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

#: The largest state file has some hundred kilobytes: 3600 times of switches.
_LARGEST_BYTES = 4 << 20


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in ``path``; ``None`` if the file is absent, or holds anything else, which is logged."""
    try:
        with path.open("rb") as stream:
            text = stream.read(_LARGEST_BYTES + 1)
        if len(text) > _LARGEST_BYTES:
            raise ValueError("it is too large")
        document = json.loads(text)
        if not isinstance(document, dict):
            raise ValueError("it holds no object")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        damaged(path, error)
        return None
    return document


def damaged(path: Path, error: Exception) -> None:
    """Log that the state file ``path`` is not used."""
    logger.warning("%s is damaged and counts as absent: %s", path, str(error)[:200] or type(error).__name__)


def remove_partial_files(directory: Path, *names: str) -> None:
    """Remove unfinished writes of the files ``names`` that a killed process left in ``directory``."""
    for name in names:
        for path in directory.glob(f".{name}.*.partial"):
            path.unlink(missing_ok=True)
