"""Checks of URIs that users write, and redaction of the credentials in them.

A URI is copied into status, manifests, reports and logs, so it must hold no secret: credentials belong into a Secret,
or into the environment.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

#: Names of query parameters that are credentials or signatures: AWS, Google, Azure, and what web servers use.
SECRET_NAME = (
    r"(?:[\w.%-]*(?:signature|credential|token|secret|passw|api[-_]?key|access[-_]?key|accessid|authorization)[\w.%-]*"
    r"|sig|key|auth|jwt|pwd|sas|user|login)"
)
_SECRET_PARAMETER = re.compile(SECRET_NAME, re.IGNORECASE)
# Bounded parts: texts of strangers are searched as well, and without bounds in the square of their length.
_SECRET_VALUE = re.compile(rf"([?&;#]{SECRET_NAME.replace(']*', ']{0,64}')}=)[^&;#\s'\"<>]+", re.IGNORECASE)
_USER_INFO = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]{0,30}://)[^/\s?#'\"<>]*@")
_AUTHORITY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(.*)", re.DOTALL)
#: Control and format characters, line separators, halves of pairs: they forge lines of logs and hide what is read.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_HIDDEN = "***"


@dataclass(frozen=True, kw_only=True)
class UriProblem:
    """What is wrong with a URI, and the next step."""

    problem: str
    remedy: str


def redacted(text: str) -> str:
    """``text`` with the credentials in its URIs replaced by ``***``."""
    if "://" not in text:
        return text
    return _SECRET_VALUE.sub(rf"\1{_HIDDEN}", _USER_INFO.sub(rf"\1{_HIDDEN}@", text))


def redacted_document(value: Any) -> Any:
    """``value``, of JSON's types, with :func:`redacted` texts at any depth."""
    if isinstance(value, dict):
        return {name: redacted_document(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redacted_document(inner) for inner in value]
    return redacted(value) if isinstance(value, str) else value


def problem_in_uri(uri: str) -> UriProblem | None:
    """Why ``uri`` can name no place, whoever wrote it; ``None`` if nothing is wrong."""
    if any(unicodedata.category(character) in _INVISIBLE for character in uri):
        return UriProblem(problem="it holds control characters", remedy="Remove them.")
    found = _AUTHORITY.match(uri)
    authority, rest = (found[2], found[3]) if found else ("", uri)
    if "::" in re.sub(r"^\[[0-9A-Fa-f:.]+\]", "", authority) or "::" in rest:
        return UriProblem(problem="it holds ::, and chains of places are not followed", remedy="Name one place.")
    if found is None:
        return None
    scheme, path = found[1].lower(), re.split(r"[?#]", rest, maxsplit=1)[0]
    if ".." in unquote(path).replace("\\", "/").split("/") or authority in (".", ".."):
        return UriProblem(problem="its path holds ..", remedy="Write the path without it.")
    if scheme == "file" and authority not in ("", "localhost"):
        return UriProblem(problem=f"it names files of another host, {authority!r}", remedy="Write file:///path.")
    if scheme != "file" and not authority:
        return UriProblem(problem="it names no host, bucket or claim", remedy=f"Write {scheme}://name/path.")
    return None


def secret_in_uri(uri: str) -> UriProblem | None:
    """Which credentials ``uri`` holds, and where they belong; ``None`` if it holds none."""
    found = _AUTHORITY.match(uri)
    if found is None:
        return None
    scheme, authority, rest = found[1].lower(), found[2], found[3]
    if scheme in ("s3", "s3a"):
        place = "Put AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY into the Secret of repository.secretRef"
    else:
        place = "Put 'machine HOST login USER password PASSWORD' as EDGEFOLIO_NETRC into the Secret of"
        place += " repository.secretRef, or use s3://"
    place += " (on a command line: into the environment)."
    if "@" in authority:
        return UriProblem(problem="it holds a user or a password, which everybody would read", remedy=place)
    for part in re.split(r"[?#]", rest)[1:]:
        for name, _ in parse_qsl(part.replace(";", "&"), keep_blank_values=True):
            if _SECRET_PARAMETER.fullmatch(name):
                return UriProblem(
                    problem=f"its parameter {name!r} is a credential or signature, which everybody would read",
                    remedy=place,
                )
    return None
