"""Reader of a user's file by URI; failures become one error that names the field."""

from __future__ import annotations

from pathlib import Path

import fsspec

from edgefolio.errors import EdgefolioError, UserError
from edgefolio.repository.storage import local_root, open_storage
from edgefolio.transient_errors import unreachable
from edgefolio_pruner.available_memory import read_bounded

#: Schemes that are read as repositories are, with their answers told apart.
_STORES = frozenset({"s3", "s3a", "http", "https"})


def read_uri(uri: str | Path, *, field: str) -> bytes:
    """All bytes behind ``uri``: a path, or a URL such as ``s3://bucket/key`` or ``https://...``.

    Raises :class:`UserError` (for ``field``) if the scheme is unknown, its driver is not installed, or the bytes
    cannot be read; :class:`~edgefolio.errors.TransientError` where that may pass by itself.
    """
    name = str(uri)
    path = uri if isinstance(uri, Path) else local_root(name, field=field)
    try:
        if path is not None:
            with path.open("rb") as local:
                return read_bounded(local, field=field, value=name)
        if name.partition("://")[0].lower() in _STORES:
            with open_storage(name, field=field).open_at("") as stream:
                return read_bounded(stream, field=field, value=name)
        with fsspec.open(name, "rb") as file:
            return read_bounded(file, field=field, value=name)
    except (EdgefolioError, MemoryError):
        raise
    except ValueError as error:
        raise UserError(
            "the scheme of this URI is not known.",
            field=field,
            value=name,
            remedy="Use a path, or a URI such as s3://bucket/key or https://host/path.",
        ) from error
    except ImportError as error:
        raise UserError(
            f"reading this URI needs a package that is not installed ({error}).",
            field=field,
            value=name,
            remedy="Install it, or use a local file.",
        ) from error
    except FileNotFoundError as error:
        raise UserError("there is no such file.", field=field, value=name, remedy="Correct the path.") from error
    except Exception as error:  # every driver of fsspec raises its own kinds
        raise unreachable(
            error,
            f"it cannot be read ({type(error).__name__}: {error}).",
            field=field,
            value=name,
            remedy="Check the address and the permission to read it.",
        ) from error
