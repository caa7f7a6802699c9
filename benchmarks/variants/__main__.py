"""Variants against dense, Torch-Pruning and ONNX Runtime's quantizer, on networks trained to a standstill.

    nice -n 19 python -m benchmarks.variants train
    nice -n 19 python -m benchmarks.variants

The first trains what is not in the user's cache: five networks, three seeds, each until its validation accuracy stands
still; hours of one core, once, and it resumes after every epoch. The second measures the claims on what is trained and
writes ``benchmarks/results/variants.json`` and ``variants.md``; finished stages are kept in ``benchmarks/work``.
Needs the extra ``benchmarks``.
"""

from __future__ import annotations

import argparse

import torch
from benchmarks.variants.claims import MEASURES
from benchmarks.variants.nets import NETS
from benchmarks.variants.running import measure_all, train_all, write_page
from benchmarks.variants.tables.results import Results

SEEDS = (0, 1, 2)


def main() -> None:
    """Read the command line and do what it asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=["measure", "train", "page"], default="measure")
    parser.add_argument("--claims", nargs="+", choices=list(MEASURES), default=list(MEASURES))
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.command == "train":
        train_all(arguments.nets, arguments.seeds)
    elif arguments.command == "page":
        write_page(Results())
    else:
        measure_all(arguments.claims, arguments.nets, arguments.seeds)


if __name__ == "__main__":
    main()
