"""Portfolios of the Triton tests serve here too; no server runs in this area. Tests share what they play."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "triton"), str(Path(__file__).parent)]
