"""A user's callable by its name, ``module:callable``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgefolio.errors import UserError


def imported(name: str, *, field: str, example: str) -> Callable[..., Any]:
    """The callable ``name``, of a package that is installed or a module in the working directory.

    Raises :class:`UserError` for ``field``.
    """
    module_name, separator, attribute = name.partition(":")
    if not separator or not module_name or not attribute:
        raise UserError(
            "a factory is module:callable.", field=field, value=name, remedy=f"Write for example {example}."
        )
    # The console script does not look in the working directory, where a user's module usually lies.
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # importing runs the user's module: it may raise anything
        raise UserError(
            f"it cannot be imported ({type(error).__name__}: {' '.join(str(error).split())[:300].rstrip('.')}).",
            field=field,
            value=name,
            remedy="Name a module on PYTHONPATH or in the working directory, and a callable in it.",
        ) from error
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
    if not callable(found):
        raise UserError("it is not callable.", field=field, value=name, remedy="Name a function or a class.")
    return found  # type: ignore[no-any-return]
