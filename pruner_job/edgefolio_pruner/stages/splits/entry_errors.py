"""Errors of planning, told of the fields of an entry of ``methods.split``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgefolio.errors import UserError

__all__ = ["of_entry"]


@contextmanager
def of_entry(position: int) -> Iterator[None]:
    """Errors of planning, which name the options of the command, for the fields of an entry."""
    fields = {
        "--workers": "workers",
        "--shares": "sharesPercent",
        "--layout": "layout",
        "--precision": "precision",
    }
    try:
        yield
    except UserError as error:
        field = fields.get(error.field)
        if field is None:
            raise
        raise UserError(
            error.problem,
            field=f"spec.methods.split[{position}].{field}",
            value=error.value,
            remedy=error.remedy,
        ) from error
