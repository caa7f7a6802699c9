"""Runner of the tests of all threats and faults, which writes one table of whether they hold.

    python -m benchmarks.faults             # without a cluster, about 5 minutes
    python -m benchmarks.faults --cluster   # those that need a cluster as well (root; the test bed's programs)

Each file of tests/attacks, and each ``test_attack_*.py`` elsewhere, is one threat: the first line of its docstring says
which, the tests what must hold. The table is ``benchmarks/results/faults.md``, with ``faults.json`` beside it.
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


def main() -> int:
    """Run the tests and write the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cluster", action="store_true", help="also run those that need a cluster")
    arguments = parser.parse_args()
    threats = [_run(path) for path in _files(with_cluster=arguments.cluster)]
    content = {
        "command": "python -m benchmarks.faults" + (" --cluster" if arguments.cluster else ""),
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


def _run(path: Path) -> dict[str, Any]:
    name = path.relative_to(ROOT)
    print(name, file=sys.stderr, flush=True)
    environment = ENVIRONMENTS.get(str(name.parent), ".venv")
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        command = [ROOT / environment / "bin" / "python", "-m", "pytest", "-q", name, f"--junitxml={report.name}"]
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
    }


def _claim(name: str) -> str:
    """The name of a test function, as words."""
    return name.partition("[")[0].removeprefix("test_").replace("_", " ")


def _markdown(content: dict[str, Any]) -> str:
    lines = [
        "# Threats and faults",
        "",
        f"`{content['command']}` at {content['commit']}. One line is one threat; tests are named after what must hold.",
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
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
