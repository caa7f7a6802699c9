"""Classification of remote failures: lasting ones need a user, transient ones may pass by themselves.

Every driver of fsspec raises its own kinds, so that they are told apart by what they have in common.
"""

from __future__ import annotations

import errno

from edgefolio.errors import TransientError, UserError

#: Kinds of botocore's errors that another attempt would meet again.
_LASTING = frozenset({"NoCredentialsError", "PartialCredentialsError", "ParamValidationError", "InvalidRegionError"})


def is_lasting(error: BaseException) -> bool:
    """Whether trying again is useless: a refused right, a missing thing, a malformed name."""
    if isinstance(error, PermissionError | FileNotFoundError | ValueError | ImportError):
        return True
    if isinstance(error, OSError) and error.errno == errno.EINVAL:
        return True
    return any(kind.__name__ in _LASTING for kind in type(error).__mro__)


def unreachable(error: BaseException, problem: str, *, field: str, value: object, remedy: str) -> UserError:
    """The error a user sees; a :class:`TransientError` where trying again may help."""
    kind = UserError if is_lasting(error) else TransientError
    return kind(problem, field=field, value=value, remedy=remedy)
