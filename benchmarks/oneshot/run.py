"""Accuracy lost by the one-shot route, and by magnitude without a refit, over several seeds. Resumable at any point.

    nice -n 15 python benchmarks/oneshot/run.py

runs every seed that is not finished in ``--work-dir`` and writes ``benchmarks/results/oneshot.json`` and ``oneshot.md``
after each. ``--table-only`` writes the table from what is there.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.oneshot.settings import ONESHOT
from benchmarks.oneshot.stages import OneShotRun
from benchmarks.oneshot.summary import summarize
from benchmarks.oneshot.table import markdown
from benchmarks.over_seeds import Benchmark, main

BENCHMARK = Benchmark(name="oneshot", settings=ONESHOT, run=OneShotRun, summarize=summarize, markdown=markdown)

if __name__ == "__main__":
    main(BENCHMARK, description=__doc__)
