"""A portfolio of equally costly variants, each of which reveals itself in its answers.

Equal cost lets latencies before, during and after a switch be compared as they are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# The nets are those of the tests, at a size that takes some milliseconds.
sys.path.extend(str(Path(__file__).parents[2] / "tests" / folder) for folder in ("shared", "triton"))

import triton_portfolios
from triton_portfolios import revealed_tag as tag_of

from edgefolio.manifest import Manifest

MODEL = "switching"
INPUT, OUTPUT = "image", "logits"
SIZE, CHANNELS, LAYERS = 28, 24, 4

__all__ = ["INPUT", "MODEL", "OUTPUT", "images", "publish", "tag_of"]


def images(samples: int = 1) -> NDArray[np.float32]:
    """A request."""
    return triton_portfolios.images(samples, size=SIZE)


def publish(directory: Path, *, variants: int) -> Manifest:
    """Publish the portfolio in ``directory``."""
    models = [
        triton_portfolios.revealing_model(rank, width=CHANNELS, layers=LAYERS, size=SIZE)
        for rank in range(1, variants + 1)
    ]
    return triton_portfolios.publish(directory, models, milliseconds=[1.0] * variants, model=MODEL, size=SIZE)
