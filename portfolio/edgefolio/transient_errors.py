"""Classification of remote failures: permanent ones need a user, transient ones a retry.

Every fsspec driver raises its own types, so they are classified by common attributes.
"""

from __future__ import annotations

import errno

from edgefolio.errors import TransientError, UserError

#: botocore errors that a retry would meet again.
_LASTING = frozenset({"NoCredentialsError", "PartialCredentialsError", "ParamValidationError", "InvalidRegionError"})


def is_lasting(error: BaseException) -> bool:
    """Whether a retry is useless: access denied, not found, a malformed name."""
    if isinstance(error, PermissionError | FileNotFoundError | ValueError | ImportError):
        return True
    if isinstance(error, OSError) and error.errno == errno.EINVAL:
        return True
    return any(kind.__name__ in _LASTING for kind in type(error).__mro__)


def unreachable(error: BaseException, problem: str, *, field: str, value: object, remedy: str) -> UserError:
    """The error a user sees; a :class:`TransientError` where trying again may help."""
    kind = UserError if is_lasting(error) else TransientError
    return kind(problem, field=field, value=value, remedy=remedy)
