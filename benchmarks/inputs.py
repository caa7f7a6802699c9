"""What becomes of a folder of small portfolios: published, refused with a remedy, or a failure, as a table.

    python -m benchmarks.inputs CASES --scratch /tmp/inputs --results benchmarks/results/inputs.md

CASES holds one folder for each case: ``portfolio.yaml`` (made by ``edgefolio make``) or ``nets.py`` alone (a factory
``nets:build``, whose fresh weights are shrunk), ``make_data.py`` where data are to be written first, and ``README.md``,
whose first line says what it is and whose line ``Right: ...`` what is right. Each runs in a copy, in a process with
bounded memory and time. A file ``nets.OTHER`` takes the place of ``nets.py`` for a second run in the same work folder.
``--train CASE`` trains a case's network on its data first, where its weights are those of a network that was not.
Whether what was seen is right, a person says in ``--verdicts`` (case to true or false, and why).
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

_TRAIN = """
import sys, numpy, torch, safetensors.torch
sys.path.insert(0, ".")
torch.manual_seed(0)
module = __import__("nets").build()
with numpy.load("data.npz") as data:
    x, y = torch.from_numpy(data["x"]).float() / 255, torch.from_numpy(data["y"])
x = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)
optimizer = torch.optim.Adam(module.parameters(), 1e-3)
for step in range(60):
    chosen = torch.randint(len(x), (32,))
    loss = torch.nn.functional.cross_entropy(module(x[chosen]), y[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
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


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a person says of a row."""

    is_right: bool
    why: str = ""


def run(case: Path, scratch: Path, *, train: bool = False) -> Seen:
    """Run ``case`` in a copy in ``scratch``; with ``train`` its network is trained on its data first."""
    folder = scratch / case.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(case, folder, copy_function=shutil.copy)
    folder.chmod(0o755)
    text = (case / "README.md").read_text(encoding="utf-8") if (case / "README.md").is_file() else ""
    first = text.partition("\n")[0].partition(":")[2].strip()
    right = next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("Right:")), "")
    try:
        result, detail = _result(folder, train=train)
        for other in sorted(folder.glob("nets.*")) if result == "done" else ():
            if other.suffix not in (".py", ".pyc"):
                shutil.copy(other, folder / "nets.py")
                again, second = _made(folder)
                result, detail = again, _one_line(f"after the edit: {second.partition(';')[0]}; before it: {detail}")
    except subprocess.TimeoutExpired:
        result, detail = "failed", f"no end within {SECONDS} s"
    return Seen(name=case.name, what=first, right=right, result=result, detail=detail)


def _result(folder: Path, *, train: bool) -> tuple[str, str]:
    if (folder / "make_data.py").is_file():
        written = _bounded([sys.executable, "make_data.py"], folder)
        if written.returncode:
            return "failed", "its data could not be written"
    if train and _bounded([sys.executable, "-c", _TRAIN], folder).returncode:
        return "failed", "its network could not be trained"
    result, detail = _made(folder)
    return result, _one_line(f"trained first: {detail}") if train else detail


def _made(folder: Path) -> tuple[str, str]:
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
    figures += f" (revision {document.get('revision')})"
    notes = document.get("notes") or []
    assert isinstance(notes, list)
    return _one_line("; ".join([figures, *(f"note: {note}" for note in notes)]))


def _last_line(text: str) -> str:
    lines = [line for line in text[-_LONGEST:].splitlines() if line.strip()]
    return _one_line(lines[-1]) if lines else "nothing was printed"


def _one_line(text: str) -> str:
    plain = re.sub(r"(/[\w.-]+){3,}/", ".../", " ".join(text.split()))
    return (plain if len(plain) <= 300 else plain[:299] + "…").replace("|", "\\|")


def table(seen: list[Seen], verdicts: dict[str, Verdict]) -> str:
    """The table as Markdown."""
    failed = sum(one.is_failure for one in seen)
    right = sum(verdicts[one.name].is_right for one in seen if one.name in verdicts)
    lines = [
        "# What becomes of small portfolios",
        "",
        f"{len(seen)} cases: {sum(one.result == 'done' for one in seen)} done, "
        f"{sum(one.result == 'refused' for one in seen)} refused, {failed} failed; {right} as is right. Made by "
        "`benchmarks/inputs.py`.",
        "",
        "| case | what | right | seen | in words | is right |",
        "|---|---|---|---|---|---|",
    ]
    for one in seen:
        verdict = verdicts.get(one.name)
        said = (
            "" if verdict is None else ("yes" if verdict.is_right else "no") + (f": {verdict.why}" * bool(verdict.why))
        )
        lines.append(
            f"| {one.name} | {_one_line(one.what)} | {_one_line(one.right)} | {one.result} | {one.detail} | {said} |"
        )
    return "\n".join(lines) + "\n"


def document(seen: list[Seen], verdicts: dict[str, Verdict]) -> dict[str, object]:
    """The same as JSON."""
    return {"cases": [{**vars(one), **(vars(verdicts[one.name]) if one.name in verdicts else {})} for one in seen]}


def main() -> None:
    """Run all cases, or those that are named, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("cases", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--train", nargs="*", default=[], metavar="CASE")
    parser.add_argument("--verdicts", type=Path, help='JSON: {"CASE": {"is_right": true, "why": ""}}')
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    kept = arguments.scratch / "seen.json"
    known = {entry["name"]: Seen(**entry) for entry in (json.loads(kept.read_text()) if kept.is_file() else [])}
    for case in sorted(path for path in arguments.cases.iterdir() if path.is_dir()):
        if arguments.only and case.name not in arguments.only:
            continue
        known[case.name] = run(case, arguments.scratch, train=case.name in arguments.train)
        print(f"{known[case.name].result:8} {case.name}: {known[case.name].detail}", flush=True)
        kept.write_text(json.dumps([vars(entry) for entry in known.values()]))
    said = json.loads(arguments.verdicts.read_text()) if arguments.verdicts is not None else {}
    verdicts = {name: Verdict(**entry) for name, entry in said.items()}
    rows = [known[name] for name in sorted(known)]
    if arguments.results is not None:
        arguments.results.write_text(table(rows, verdicts), encoding="utf-8")
        written = json.dumps(document(rows, verdicts), indent=1) + "\n"
        arguments.results.with_suffix(".json").write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
