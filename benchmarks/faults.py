"""Runner of the tests of all threats and faults, which writes one table of whether they hold.

    python -m benchmarks.faults             # without a cluster, about 5 minutes
    python -m benchmarks.faults --only under_load --cluster   # some, by their files; the others' results are kept
    python -m benchmarks.faults --cluster   # those that need a cluster as well (root; the test bed's programs)

Each file of tests/attacks, each ``test_attack_*.py`` elsewhere and each of ``FAULTS`` is one threat: the first line
of its docstring says which, the tests what must hold. Tests that send requests meanwhile record how many, and how
many failed. The table is ``benchmarks/results/faults.md``, with ``faults.json`` beside it.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.scale.__main__ import commit, machine

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
#: The agent's tests run in an environment without torch.
ENVIRONMENTS = {"tests/triton": ".venv-edge"}
#: Faults that nobody causes; each is one file as well.
FAULTS = ("test_endurance.py", "test_processors.py", "test_reboot.py", "test_slow_loads.py", "test_split_serving.py")


def main() -> int:
    """Run the tests and write the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cluster", action="store_true", help="also run those that need a cluster")
    parser.add_argument("--only", default="", help="files whose path holds this; results of others are kept")
    arguments = parser.parse_args()
    chosen = [path for path in _files(with_cluster=arguments.cluster) if arguments.only in str(path.relative_to(ROOT))]
    threats = [_run(path) for path in chosen]
    if arguments.only:
        ran = {threat["file"] for threat in threats}
        kept = json.loads((RESULTS / "faults.json").read_text())["threats"]
        threats = sorted(
            [*threats, *(threat for threat in kept if threat["file"] not in ran)], key=lambda threat: threat["file"]
        )
    content = {
        "command": "python -m benchmarks.faults" + (" --cluster" if any(map(_needs_cluster, threats)) else ""),
        "commit": commit(),
        "machine": machine(),
        "threats": threats,
    }
    (RESULTS / "faults.json").write_text(json.dumps(content, indent=1) + "\n")
    (RESULTS / "faults.md").write_text(_markdown(content))
    return 0 if all(not threat["failed"] for threat in threats) else 1


def _files(*, with_cluster: bool) -> Iterator[Path]:
    yield from sorted((ROOT / "tests" / "attacks").glob("test_*.py"))
    for path in sorted((ROOT / "tests").glob("*/test_attack_*.py")):
        if with_cluster or path.parent.name != "cluster":
            yield path
    yield from (ROOT / "tests" / "triton" / name for name in FAULTS)


def _needs_cluster(threat: dict[str, Any]) -> bool:
    return str(threat["file"]).startswith("tests/cluster/")


def _run(path: Path) -> dict[str, Any]:
    name = path.relative_to(ROOT)
    print(name, file=sys.stderr, flush=True)
    environment = ENVIRONMENTS.get(str(name.parent), ".venv")
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        # Only the older form of the report holds what tests record; pytest warns, and warnings are errors.
        options = (f"--junitxml={report.name}", "-o", "junit_family=xunit1")
        command = [ROOT / environment / "bin" / "python", "-m", "pytest", "-q", name, *options]
        subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
        cases = list(ElementTree.parse(report.name).iter("testcase"))
    failed = sorted(
        {str(case.get("name")) for case in cases if case.find("failure") is not None or case.find("error") is not None}
    )
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {
        "file": str(name),
        "threat": (ast.get_docstring(ast.parse(path.read_text())) or path.stem).splitlines()[0],
        "holds": sorted({_claim(str(case.get("name"))) for case in cases if case.find("skipped") is None}),
        "tests": len(cases),
        "passed": len(cases) - len(failed) - skipped,
        "skipped": skipped,
        "failed": failed,
        "commit": commit(),
        "underLoad": [_load(case) for case in cases if _property(case, "requests") is not None],
    }


def _load(case: ElementTree.Element) -> dict[str, Any]:
    counted = {name: int(_property(case, name) or 0) for name in ("requests", "failed")}
    return {"test": str(case.get("name")), "seconds": round(float(case.get("time", 0))), **counted}


def _property(case: ElementTree.Element, name: str) -> str | None:
    """What the test recorded under ``name``."""
    return next((entry.get("value") for entry in case.iter("property") if entry.get("name") == name), None)


def _claim(name: str) -> str:
    """The name of a test function, as words."""
    return name.partition("[")[0].removeprefix("test_").replace("_", " ")


def _markdown(content: dict[str, Any]) -> str:
    commits = ", ".join(sorted({threat.get("commit", content["commit"]) for threat in content["threats"]}))
    lines = [
        "# Threats and faults",
        "",
        f"`{content['command']}` at {commits}. One line is one threat; tests are named after what must hold.",
        "",
        "| threat | what holds | tests | passed | skipped |",
        "|---|---|---|---|---|",
    ]
    for threat in content["threats"]:
        holds = "; ".join(threat["holds"])
        lines.append(
            f"| {threat['threat']} (`{threat['file']}`) | {holds} | {threat['tests']} | {threat['passed']} "
            f"| {threat['skipped']} |"
        )
    loads = [(threat, load) for threat in content["threats"] for load in threat.get("underLoad", ())]
    if loads:
        lines += [
            "",
            "## Under load",
            "",
            "Clients ask all the time. On a cluster there is one on each of two nodes, which asks the Service; what is "
            "not answered within 20 s has failed.",
            "",
            "| what happens meanwhile | requests | failed |",
            "|---|---|---|",
        ]
        for threat, load in loads:
            name = load["test"].removeprefix("test_").replace("_", " ")
            lines.append(f"| {name} (`{threat['file']}`) | {load['requests']:,} | {load['failed']} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
