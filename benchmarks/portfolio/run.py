"""Accuracy, size, speed and making time of portfolios by both routes, over several seeds. Resumable at any point.

    nice -n 15 python benchmarks/portfolio/run.py

runs every (network, seed) that is not finished in ``--work-dir`` and writes ``benchmarks/results/portfolio.json`` and
``portfolio.md`` after each. ``--table-only`` writes the table from what is there.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.over_seeds import Benchmark, main
from benchmarks.portfolio.settings import PORTFOLIO
from benchmarks.portfolio.stages import Run
from benchmarks.portfolio.summary import summarize
from benchmarks.portfolio.table import markdown

BENCHMARK = Benchmark(name="portfolio", settings=PORTFOLIO, run=Run, summarize=summarize, markdown=markdown)

if __name__ == "__main__":
    main(BENCHMARK, description=__doc__)
