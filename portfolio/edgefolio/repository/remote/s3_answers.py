"""Classification of what an S3-compatible store answers, also where it deviates from AWS.

A condition that does not hold is 412, for a new object in old MinIO 304 (minio 19442), for a replaced one 404 if it was
deleted meanwhile; 409 means that another write was under way. Stores without conditional writes answer 501, or 400.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

from edgefolio.errors import IntegrityError, TransientError, UserError
from edgefolio.repository.remote.calls import SlowError
from edgefolio.transient_errors import FORBIDDEN_STATUSES, MISSING_STATUSES, is_passing_status, unreachable

#: The right that each request needs, as a policy names it.
_RIGHTS = {
    "GetObject": "s3:GetObject",
    "HeadBucket": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "DeleteObject": "s3:DeleteObject",
}
_PUT = "s3:PutObject"
#: Refused credentials that do not come with 401 or 403.
_FORBIDDEN_CODES = frozenset(
    {"AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}
)
_CLOCK_CODES = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
#: Trouble of the store that comes with 400.
_PASSING_CODES = frozenset({"RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable", "IncompleteBody"})
_UNSUPPORTED_CODES = frozenset({"NotImplemented", "InvalidArgument", "InvalidRequest"})


class ChangedError(Exception):
    """A conditional write was not done: the object is there, or is another one than was read."""


class BusyError(Exception):
    """A conditional write was not done because of another one under way: 409."""


class UnsupportedError(Exception):
    """The store knows no conditional writes."""


def status_and_code(error: BaseException) -> tuple[int, str, str] | None:
    """HTTP status, S3's code and the operation of botocore's ClientError; ``None`` for any other error.

    s3fs raises errors of its own from it.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(getattr(cause, "response", None), dict):
        cause = cause.__cause__
    if cause is None:
        return None
    response: Any = getattr(cause, "response", None)
    details, metadata = response.get("Error") or {}, response.get("ResponseMetadata") or {}
    code = str(details.get("Code", ""))
    status = metadata.get("HTTPStatusCode") or (int(code) if re.fullmatch("[0-9]{3}", code) else 0)
    return int(status), code, str(getattr(cause, "operation_name", ""))


def raise_for_condition(error: BaseException, *, replacing: bool) -> None:
    """Raise what the answer to a conditional write says of its condition; return for all other failures.

    ``replacing``: the condition was If-Match, else If-None-Match.
    """
    found = status_and_code(error)
    if found is None:
        return
    status, code, _ = found
    missing = status == 404 and code in ("NoSuchKey", "404")
    if status in (304, 412) or code == "PreconditionFailed" or (missing and replacing):
        raise ChangedError from error
    if status == 409:
        raise BusyError from error
    if status == 501 or missing or (status == 400 and code in _UNSUPPORTED_CODES):
        raise UnsupportedError(code) from error


def raise_translated(error: Exception, *, uri: str, field: str, path: str) -> NoReturn:
    """Raise ``error`` of botocore, or of the way to the store, as one of ours or as :class:`FileNotFoundError`."""
    found = status_and_code(error)
    if found is not None:
        _raise_answer(*found, error=error, uri=uri, field=field, path=path)
    if any(kind.__name__.endswith("ChecksumError") for kind in type(error).__mro__):
        # S3 keeps a checksum with each object, and its client compares it before we could.
        raise IntegrityError(
            "the store reports that these are not the bytes that were written.", location=f"{uri}/{path}"
        ) from error
    what = str(error) if isinstance(error, SlowError) else f"{type(error).__name__}: {' '.join(str(error).split())}"
    raise unreachable(
        error,
        f"the store cannot be reached ({what[:200]}).",
        field=field,
        value=uri,
        remedy="Check the address (AWS_ENDPOINT_URL), the network and the credentials.",
    ) from error


def _raise_answer(
    status: int, code: str, operation: str, *, error: Exception, uri: str, field: str, path: str
) -> NoReturn:
    bucket = uri.partition("://")[2].partition("/")[0]
    said = f"{code} (HTTP {status})" if code and code != str(status) else f"HTTP {status}"
    where = f" at {path}" if path else ""
    if code == "NoSuchBucket" or (operation == "HeadBucket" and status in MISSING_STATUSES):
        raise UserError(
            f"there is no bucket {bucket!r}.",
            field=field,
            value=uri,
            remedy="Create the bucket, or correct its name.",
        ) from error
    if status in MISSING_STATUSES:
        raise FileNotFoundError(path) from error
    if code in _CLOCK_CODES:
        raise TransientError(
            f"the store refuses the request's time ({said}): this machine's clock is wrong.",
            field=field,
            value=uri,
            remedy="Set the clock, for instance by NTP.",
        ) from error
    if status in FORBIDDEN_STATUSES or code in _FORBIDDEN_CODES:
        right = _RIGHTS.get(operation, _PUT)
        also = "; to a key that may not list, a missing object looks the same" if right == "s3:GetObject" else ""
        raise UserError(
            f"the store refuses access{where}: {said} for {operation}{also}.",
            field=field,
            value=uri,
            remedy=f"Check bucket, prefix and credentials, and that they have the right {right}.",
        ) from error
    passing = is_passing_status(status) or code in _PASSING_CODES or 300 <= status < 400 or not status
    kind = TransientError if passing else UserError
    raise kind(
        f"the store answers {said} for {operation}{where}.",
        field=field,
        value=uri,
        remedy="It is tried again." if passing else "Check the address, the bucket and the region.",
    ) from error
