"""Attacks, one file a threat; portfolios of the Triton tests are what is attacked."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "triton"))
