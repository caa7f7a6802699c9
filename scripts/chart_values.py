"""The chart's values as a table: path, default and meaning, read from the comments in ``values.yaml``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

_KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z][A-Za-z0-9]*):(?P<rest>.*)$")


def table(path: Path) -> str:
    """The values of the file ``path`` as a Markdown table. What no comment is about shares that of the value above."""
    rows = ["| value | default | meaning |", "|---|---|---|"]
    rows += [f"| `{name}` | {default} | {meaning} |" for name, default, meaning in values(path)]
    return "\n".join(rows) + "\n"


def values(path: Path) -> Iterator[tuple[str, str, str]]:
    """Path, default and meaning of each value that a user sets, and of each group that has a meaning of its own."""
    text = path.read_text(encoding="utf-8")
    defaults = yaml.safe_load(text)
    inside: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped.lstrip("#").strip())
            continue
        if not stripped:
            comment = []
            continue
        match = _KEY.match(line)
        if match is None:
            comment = []
            continue
        indent = len(match["indent"])
        while inside and inside[-1][0] >= indent:
            inside.pop()
        inside.append((indent, match["key"]))
        keys = [key for _, key in inside]
        value = _at(defaults, keys)
        is_group = isinstance(value, dict) and bool(value) and not match["rest"].strip()
        if not is_group or comment:
            shown = "" if is_group else f"`{json.dumps(value)}`"
            yield ".".join(keys), shown.replace("|", "\\|"), " ".join(comment).replace("|", "\\|")
        comment = []


def _at(defaults: object, keys: list[str]) -> object:
    for key in keys:
        assert isinstance(defaults, dict)
        defaults = defaults[key]
    return defaults
