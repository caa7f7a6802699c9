"""Results of the split benchmarks: one JSON with the machine and its versions, and its tables beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from benchmarks.over_seeds import say
from benchmarks.scale.__main__ import commit

from edgefolio_pruner.profiling.environment import describe_environment

__all__ = ["RESULTS", "Json", "headline", "write"]

Json = dict[str, Any]
RESULTS = Path(__file__).resolve().parents[1] / "results"


def write(
    folder: Path, name: str, *, command: str, content: Mapping[str, Any], markdown: Callable[[Json], str]
) -> None:
    """Write ``NAME.json`` and ``NAME.md`` with where and with what they were made."""
    environment = describe_environment(threads=1, onnxruntime_version=onnxruntime.__version__)
    document = {
        "command": command,
        "commit": commit(),
        "machine": environment.model_dump(mode="json", by_alias=True),
        "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
        **content,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / f"{name}.md").write_text(markdown(document))
    say(f"wrote {folder / f'{name}.json'} and its table")


def headline(title: str, content: Json, text: str) -> list[str]:
    """The first lines of a page."""
    versions = content["versions"]
    where = f"`{content['command']}`, {content['machine']['cpuModel']}, torch {versions['torch']}"
    return [f"# {title}", "", f"{where}. {text}"]
