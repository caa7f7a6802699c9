"""Run the demonstration: ``python -m demo [--output DIR]``.

Exit code 0 only if all that must always hold did: exactness, no failed request, no answer from another version than
stated, the corrupt revision refused, recovery after the agent was killed. Speed and accuracy are shown, not judged.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from demo.loads import LoadResult, Stage
from demo.results import show, timeline
from edgefolio.repository import Repository

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "fashion-mnist.yaml"


def main() -> int:
    """Make, publish, serve under three loads, judge, report."""
    parser = argparse.ArgumentParser(
        prog="python -m demo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT / "demo-output", help="where everything is written")
    parser.add_argument("--example", type=Path, default=EXAMPLE, help="the portfolio to make")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    began = time.monotonic()

    def progress(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:5.0f} s[/dim]  {text}")

    output: Path = arguments.output.resolve()
    repository = output / "repository"
    for stale in (repository, output / "loads"):
        shutil.rmtree(stale, ignore_errors=True)
    (output / "loads").mkdir(parents=True)

    progress(f"making a portfolio of {arguments.example.name} (training, pruning, profiling; about 5 minutes)")
    command = [sys.executable, "-m", "edgefolio.commands.main", "make", "-f", str(arguments.example)]
    options = ["--repository", str(repository), "--work-dir", str(output / "work")]
    made = subprocess.run([*command, *options, "--report", str(output / "report.html")], check=False)
    if made.returncode != 0:
        console.print(f"[red]edgefolio make ended with {made.returncode}[/red]")
        return made.returncode
    store = Repository.open(str(repository))
    model = store.models()[0]
    _, manifest = store.current_manifest(model)

    stage = Stage(
        output=output / "loads", repository=repository, example=arguments.example, manifest=manifest, progress=progress
    )
    results: list[LoadResult] = [stage.adaptive(), stage.fixed_slowest(), stage.fixed_fastest()]

    report = output / "report.html"
    recorded = output / "timeline.json"
    timeline(manifest, results).write(recorded)
    progress("writing the report")
    command = [sys.executable, "-m", "edgefolio.commands.main", "report", str(repository)]
    options = ["--revision", str(manifest.revision), "--timeline", str(recorded), "--output", str(report)]
    subprocess.run([*command, *options], check=True)
    return show(console, manifest, results, report=report, seconds=time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main())
