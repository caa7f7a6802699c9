"""Training killed at random instants and started again ends with the same bits as one that ran through."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLS = 3

SCRIPT = """
import sys
from functools import partial
from pathlib import Path
import torch
from edgefolio.specification import DataSpecification, SparseTraining
from edgefolio_pruner.data import load_data
from edgefolio_pruner.model_source.loading import build_architecture, parse_architecture
from edgefolio_pruner.training import train_levels

torch.set_num_threads(1)
data = load_data(DataSpecification(training_uri=sys.argv[1]), seed=0)
architecture = parse_architecture("edgefolio:cnn", ["in_channels=1", "width=12"])
print("started", flush=True)
levels = train_levels(
    specification=SparseTraining(
        dense_epochs=3, levels=2, epochs_per_level=2, batch_size=32, sparsity=sys.argv[3], rewind_step=int(sys.argv[4])
    ),
    build=partial(build_architecture, architecture, seed=0),
    initial_state=None,
    data=data,
    seed=0,
    threads=1,
    work_directory=Path(sys.argv[2]),
    checkpoint_seconds=0.05,
)
print(" ".join(level.state_digest for level in levels), flush=True)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(path, x=(digits.images / 16).astype(np.float32), y=digits.target)
    return path


def start(data: Path, folder: Path, sparsity: str, rewind_step: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(data), str(folder), sparsity, str(rewind_step)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def digests(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return output.strip()


@pytest.mark.parametrize(("sparsity", "rewind_step", "kills"), [("Group", 0, KILLS), ("Magnitude", 50, 2)])
def test_killed_training_ends_with_the_same_bits(
    data: Path, tmp_path: Path, sparsity: str, rewind_step: int, kills: int
) -> None:
    began = time.monotonic()
    whole = start(data, tmp_path / "whole", sparsity, rewind_step)
    expected = digests(whole)
    assert len(set(expected.split())) == 3
    share = (time.monotonic() - began) / (kills + 1)
    # Instants over all the run: inside steps, inside the writing of checkpoints, between levels.
    instants = random.Random(1)
    unfinished = 0
    while unfinished < kills:
        process = start(data, tmp_path / "killed", sparsity, rewind_step)
        time.sleep(instants.uniform(0.0, share))
        killed = process.poll() is None
        process.kill()
        process.communicate()
        unfinished += killed
        if not killed:
            # The machine has become faster than it was for the whole run: that one proved nothing, it is done anew.
            shutil.rmtree(tmp_path / "killed")
            unfinished, share = 0, share / 2
    assert digests(start(data, tmp_path / "killed", sparsity, rewind_step)) == expected
    left = {path.name for path in (tmp_path / "killed").rglob("*") if path.is_file()}
    assert left == {path.name for path in (tmp_path / "whole").rglob("*") if path.is_file()}
