"""A work directory that another process or a mirror left in any state: what cannot be read is made anew."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgefolio_pruner.training.checkpoint import read_json, read_tensors, write_json, write_tensors
from edgefolio_pruner.work.directory import WorkDirectory

NONSENSE = [b"", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b"9" * 5000, b"null", b"\0" * 1000]


@pytest.mark.parametrize("raw", NONSENSE, ids=lambda raw: repr(raw[:6]))
def test_nonsense_is_as_good_as_nothing(raw: bytes, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    write_json(record, {"a": 1})
    assert read_json(record) == {"a": 1}
    record.write_bytes(raw)
    assert read_json(record) is None

    tensors = tmp_path / "tensors.safetensors"
    write_tensors(tensors, {"a": torch.ones(2)}, {"step": 3})
    found = read_tensors(tensors)
    assert found is not None
    assert found.record == {"step": 3}
    tensors.write_bytes(raw)
    assert read_tensors(tensors) is None

    work = WorkDirectory(tmp_path / "work")
    with work.occupied():
        assert work.result("stage", {"seed": 1}, lambda: 5) == 5
        (kept,) = (path for path in work.path.rglob("*.json") if b"stage" in path.read_bytes() or "stage" in path.name)
        kept.write_bytes(raw)
        assert work.kept("stage", {"seed": 1}) is None
        assert work.result("stage", {"seed": 1}, lambda: 6) == 6
