"""The fuzzer begins with bytes that are understood: one that is refused at once would find nothing, and say so."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "scripts"))

import fuzz_targets  # noqa: E402

SEEDS = fuzz_targets.seeds()


@pytest.mark.parametrize("name", fuzz_targets.TARGETS)
def test_each_target_takes_its_first_bytes_and_any_cut_of_them(name: str) -> None:
    target = fuzz_targets.TARGETS[name]
    assert target(SEEDS[name][0])
    for raw in SEEDS[name]:
        assert 0 < len(raw) <= fuzz_targets.LONGEST_BYTES
        for end in {0, len(raw) // 2, len(raw) - 1, len(raw)}:
            target(raw[:end])
        target(raw[: len(raw) // 2] + b"\xff\x00{[" + raw[len(raw) // 2 :])


def test_there_are_first_bytes_for_each_target() -> None:
    assert SEEDS.keys() == fuzz_targets.TARGETS.keys()
