"""What becomes of a folder of small portfolios: published, refused with a remedy, or a failure, as a table.

    python -m benchmarks.inputs CASES --scratch /tmp/inputs --results benchmarks/results/inputs.md

CASES holds one folder for each case: ``portfolio.yaml`` (made by ``edgefolio make``) or ``nets.py`` alone (a factory
``nets:build``, whose fresh weights are shrunk), ``make_data.py`` where data are to be written first, and ``README.md``,
whose first line says what it is and whose line ``Right: ...`` what is right. Each runs in a copy, in a process with
bounded memory and time. Whether what was seen is right, a person says in ``verdicts.json`` (case to true or false) of
the scratch folder; without it the column stays open.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SECONDS, MEMORY_BYTES = 600, 8 << 30
#: Bytes of text that is looked at.
_LONGEST = 20_000
_COMMAND = [sys.executable, "-m", "edgefolio.commands.main"]
_SAVE = """
import importlib, sys, safetensors.torch
sys.path.insert(0, ".")
module = importlib.import_module("nets").build()
state = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
safetensors.torch.save_file(state, "w.safetensors")
"""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one case gave."""

    name: str
    what: str
    right: str
    result: str
    detail: str

    @property
    def is_failure(self) -> bool:
        """Whether it ended in a traceback, a signal or no time."""
        return self.result == "failed"


def run(case: Path, scratch: Path) -> Seen:
    """Run ``case`` in a copy in ``scratch``."""
    folder = scratch / case.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(case, folder, copy_function=shutil.copy)
    folder.chmod(0o755)
    text = (case / "README.md").read_text(encoding="utf-8") if (case / "README.md").is_file() else ""
    first = text.partition("\n")[0].partition(":")[2].strip()
    right = next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("Right:")), "")
    try:
        result, detail = _result(folder)
    except subprocess.TimeoutExpired:
        result, detail = "failed", f"no end within {SECONDS} s"
    return Seen(name=case.name, what=first, right=right, result=result, detail=detail)


def _result(folder: Path) -> tuple[str, str]:
    if (folder / "make_data.py").is_file():
        written = _bounded([sys.executable, "make_data.py"], folder)
        if written.returncode:
            return "failed", "its data could not be written"
    if (folder / "portfolio.yaml").is_file():
        command = [*_COMMAND, "make", "-f", "portfolio.yaml", "--work-dir", "work", "--json"]
    else:
        saved = _bounded([sys.executable, "-c", _SAVE], folder)
        if saved.returncode:
            return "failed", "its network could not be built"
        command = [*_COMMAND, "shrink", "--factory", "nets:build", "--weights", "w.safetensors"]
        command += ["--input-shape", "3,16,16", "--output", "out.onnx", "--latency-samples", "0", "--json"]
    finished = _bounded(command, folder)
    if finished.returncode == 2:
        return "refused", _refusal(finished.stderr)
    if finished.returncode not in (0, 3):
        return "failed", f"exit code {finished.returncode}: {_last_line(finished.stderr)}"
    try:
        return "done", _outcome(json.loads(finished.stdout))
    except ValueError:
        return "failed", "standard output is no JSON"


def _bounded(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def _refusal(stderr: str) -> str:
    found = re.search(r"^error: (.*?)^  remedy: (.*?)$", stderr[-_LONGEST:], flags=re.MULTILINE | re.DOTALL)
    if found is None:
        return _last_line(stderr)
    return _one_line(f"{found.group(1)} Remedy: {found.group(2)}")


def _outcome(document: dict[str, object]) -> str:
    if "variants" not in document:
        removed = document.get("channelsRemoved")
        return f"shrunk, {removed} channels removed"
    variants = document["variants"]
    assert isinstance(variants, list)
    figures = ", ".join(f"{entry['name']} {entry.get('testAccuracyPercent', 0):.1f} %" for entry in variants)
    notes = document.get("notes") or []
    assert isinstance(notes, list)
    return _one_line("; ".join([figures, *(f"note: {note}" for note in notes)]))


def _last_line(text: str) -> str:
    lines = [line for line in text[-_LONGEST:].splitlines() if line.strip()]
    return _one_line(lines[-1]) if lines else "nothing was printed"


def _one_line(text: str) -> str:
    plain = re.sub(r"(/[\w.-]+){3,}/", ".../", " ".join(text.split()))
    return (plain if len(plain) <= 300 else plain[:299] + "…").replace("|", "\\|")


def table(seen: list[Seen], verdicts: dict[str, bool]) -> str:
    """The table as Markdown."""
    failed = sum(one.is_failure for one in seen)
    lines = [
        "# What becomes of small portfolios",
        "",
        f"{len(seen)} cases: {sum(one.result == 'done' for one in seen)} done, "
        f"{sum(one.result == 'refused' for one in seen)} refused, {failed} failed. Made by `benchmarks/inputs.py`.",
        "",
        "| case | what | right | seen | in words | is right |",
        "|---|---|---|---|---|---|",
    ]
    for one in seen:
        verdict = {True: "yes", False: "no"}.get(verdicts[one.name], "") if one.name in verdicts else ""
        lines.append(
            f"| {one.name} | {_one_line(one.what)} | {_one_line(one.right)} | {one.result} | {one.detail} | {verdict} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run all cases, or those that are named, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("cases", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    kept = arguments.scratch / "seen.json"
    known = {entry["name"]: Seen(**entry) for entry in (json.loads(kept.read_text()) if kept.is_file() else [])}
    for case in sorted(path for path in arguments.cases.iterdir() if path.is_dir()):
        if arguments.only and case.name not in arguments.only:
            continue
        known[case.name] = run(case, arguments.scratch)
        print(f"{known[case.name].result:8} {case.name}: {known[case.name].detail}", flush=True)
        kept.write_text(json.dumps([vars(entry) for entry in known.values()]))
    verdict_file = arguments.scratch / "verdicts.json"
    verdicts = json.loads(verdict_file.read_text()) if verdict_file.is_file() else {}
    text = table([known[name] for name in sorted(known)], verdicts)
    if arguments.results is not None:
        arguments.results.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
