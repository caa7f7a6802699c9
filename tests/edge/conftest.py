"""Portfolios of the Triton tests serve here too; no server runs in this area."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "triton"))
