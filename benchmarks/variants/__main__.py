"""Variants against dense, Torch-Pruning and ONNX Runtime's quantizer, on networks trained to a standstill.

    nice -n 19 python -m benchmarks.variants train

trains what is not in the user's cache: five networks, three seeds, each until its validation accuracy stands still.
"""

from __future__ import annotations

import argparse

import torch
from benchmarks.over_seeds import say
from benchmarks.variants.data import data_of
from benchmarks.variants.nets import NETS
from benchmarks.variants.stopping import Standing
from benchmarks.variants.training import train, trained

SEEDS = (0, 1, 2)


def main() -> None:
    """Read the command line and do what it asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["train"])
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train_all(arguments.nets, arguments.seeds)


def train_all(nets: list[str], seeds: list[int]) -> None:
    """Train what is missing: the convolutional networks seed by seed, the slow transformer last."""
    order = sorted(((name, seed) for name in nets for seed in seeds), key=lambda pair: (pair[0] == "vit", pair[1]))
    for name, seed in order:
        if trained(name, NETS[name], seed) is not None:
            say(f"{name}, seed {seed}: trained before")
            continue

        def report(standing: Standing, accuracy: float, last: bool, name: str = name, seed: int = seed) -> None:
            state = "done" if last else f"rate stage {standing.stage + 1}"
            say(f"{name}, seed {seed}: epoch {standing.epoch}, {accuracy:.2f} %, best {standing.best:.2f} %, {state}")

        train(name, NETS[name], seed, data_of(seed), report=report)


if __name__ == "__main__":
    main()
