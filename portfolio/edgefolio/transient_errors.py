"""Classification of remote failures: permanent ones need a user, transient ones a retry.

Every fsspec driver raises its own types, so they are classified by common attributes; answers by their HTTP status.
"""

from __future__ import annotations

import errno

from edgefolio.errors import TransientError, UserError

#: HTTP statuses of an object that is not there.
MISSING_STATUSES = frozenset({404, 410})
#: HTTP statuses that other credentials would mend (407: those of a proxy).
FORBIDDEN_STATUSES = frozenset({401, 403, 407})
#: Of the 4xx, those that a retry may solve: time-out, too early, too many requests.
_PASSING_STATUSES = frozenset({408, 425, 429})

#: botocore errors that a retry would meet again.
_LASTING = frozenset({"NoCredentialsError", "PartialCredentialsError", "ParamValidationError", "InvalidRegionError"})


def is_passing_status(status: int) -> bool:
    """Whether the server, not the request, is at fault: busy, overloaded, restarting."""
    return status >= 500 or status in _PASSING_STATUSES


def is_lasting(error: BaseException) -> bool:
    """Whether a retry is useless: access denied, not found, a malformed name."""
    status = _status_of(error)
    if status is not None:
        return not is_passing_status(status)
    if isinstance(error, PermissionError | FileNotFoundError | ValueError | ImportError):
        return True
    if isinstance(error, OSError) and error.errno == errno.EINVAL:
        return True
    return any(kind.__name__ in _LASTING for kind in type(error).__mro__)


def unreachable(error: BaseException, problem: str, *, field: str, value: object, remedy: str) -> UserError:
    """The error a user sees; a :class:`TransientError` where trying again may help."""
    kind = UserError if is_lasting(error) else TransientError
    return kind(problem, field=field, value=value, remedy=remedy)


def _status_of(error: BaseException | None) -> int | None:
    """The HTTP status in ``error`` or in what it was raised from.

    fsspec 2026.9 makes FileNotFoundError of every HTTP error, with the answer as its cause.
    """
    while error is not None:
        status = getattr(error, "status", None)  # aiohttp's
        response = getattr(error, "response", None)
        if isinstance(response, dict):  # botocore's
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if isinstance(status, int) and 400 <= status < 600:
            return status
        error = error.__cause__
    return None
