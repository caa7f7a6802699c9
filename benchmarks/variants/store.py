"""Finished stages of the benchmark, one JSON file each: a stage whose key is the same is not run again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgefolio_pruner.training.checkpoint import read_json, write_json

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
#: The code that a variant's weights and file depend on.
PRODUCT = ("pruner_job/edgefolio_pruner",)


def digest_of_code(places: Sequence[str], root: Path = ROOT) -> str:
    """The sha256 over all Python files in ``places``, files or folders under ``root``."""
    digest = hashlib.sha256()
    for place in places:
        path = root / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


@dataclass(frozen=True)
class Store:
    """The stages of one network and seed in ``folder``; ``key`` is what all of them depend on."""

    folder: Path
    key: Json
    say: Callable[[str], None]
    label: str

    def stage(self, name: str, work: Callable[[], Json], *, code: Sequence[str], **settings: object) -> Json:
        """What ``work`` gives, or gave before with the same key, settings and code."""
        path = self.folder / f"{name}.json"
        key = json.loads(json.dumps({**self.key, "code": digest_of_code(code), **settings}))
        held = read_json(path)
        if held is not None and held.get("key") == key:
            result: Json = held["result"]
            return result
        self.folder.mkdir(parents=True, exist_ok=True)
        self.say(f"{self.label}: {name}")
        started = time.perf_counter()
        result = work()
        write_json(path, {"key": key, "result": result})
        self.say(f"{self.label}: {name} done in {time.perf_counter() - started:.0f} s")
        return result
