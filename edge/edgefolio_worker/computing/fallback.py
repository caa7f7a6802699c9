"""The variant of one node that answers when the peers do not: a sibling version's model, opened in this process."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgefolio_worker.computing.probe_file import Arrays, decoded, difference
from edgefolio_worker.computing.sessions import open_session

__all__ = ["Fallback", "FallbackError"]


class FallbackError(RuntimeError):
    """There is no such variant, or it computes something else than its probe says."""


class Fallback:
    """The opened model of the Triton ``version`` in the folder of its model."""

    def __init__(self, model_folder: Path, version: int, *, threads: int) -> None:
        """Open it and compare its probe. Raises :class:`FallbackError`."""
        self.version = version
        folder = model_folder / str(version)
        try:
            content = (folder / "model.onnx").read_bytes()
            probe = json.loads((folder / "probe.json").read_bytes())
        except (OSError, ValueError) as error:
            raise FallbackError(f"fallback {version}: {error}") from error
        try:
            self._session = open_session(content, threads=threads)
            outputs = decoded(probe["outputs"])
            answers = self.run(list(outputs), decoded(probe["inputs"]))
        except Exception as error:  # ONNX Runtime has no common type
            raise FallbackError(f"fallback {version}: {' '.join(str(error).split())[:300]}") from error
        wrong = difference(outputs, answers, absolute=float(probe["absoluteTolerance"]))
        if wrong is not None:
            raise FallbackError(f"fallback {version}: probe: {wrong}")

    def run(self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """The named outputs. Raises whatever ONNX Runtime does."""
        return dict(zip(outputs, self._session.run(list(outputs), dict(inputs)), strict=True))
