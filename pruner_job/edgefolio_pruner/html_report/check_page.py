"""Page of ``edgefolio check``: what was understood, and a picture of each class as the network sees it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from edgefolio.files import write_durably
from edgefolio.shown_text import printable

if TYPE_CHECKING:
    from edgefolio_pruner.stages.checks.understanding import Understanding

_MOST_PICTURES = 200
_SIDE = 96


def write_check_page(found: Understanding, rows: Sequence[tuple[str, str]], path: Path) -> Path:
    """Write the page to ``path``, one file that needs nothing from outside.

    Raises :class:`~edgefolio.errors.UserError` if it cannot be written.
    """
    from edgefolio_pruner.stages.checks.understanding import first_of_each_class

    data = found.data
    pictures = []
    if len(data.sample_shape) == 3:
        pictures = [
            (number, printable(data.class_names[number]), _source(values))
            for number, values in first_of_each_class(data, most=_MOST_PICTURES).items()
        ]
    environment = Environment(
        loader=PackageLoader("edgefolio_pruner.html_report", "templates"), autoescape=True, undefined=StrictUndefined
    )
    text = environment.get_template("check.html.jinja").render(
        rows=rows, notes=[printable(note) for note in found.notes], pictures=pictures, classes=len(data.class_names)
    )
    write_durably(path, text.encode(), field="--report")
    return path


def _source(values: np.ndarray[Any, Any]) -> str:
    """A picture ``[C, H, W]`` of values 0..1 as the source of an HTML image: in colour, or its first channel."""
    whole = np.rint(255 * values).astype(np.uint8)
    picture = Image.fromarray(whole.transpose(1, 2, 0)) if len(whole) == 3 else Image.fromarray(whole[0])
    if max(picture.size) > 4 * _SIDE:
        picture.thumbnail((4 * _SIDE, 4 * _SIDE))
    content = io.BytesIO()
    picture.save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
