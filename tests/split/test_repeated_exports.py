"""Exports after the first take the exporter's table of operators from it, and give the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from generated_nets import net_of, samples

from edgefolio_pruner.export import export_onnx, operator_registry


def exported(path: Path) -> bytes:
    net = net_of(["residual", "inverted"], 0)
    export_onnx(net, (samples(number=2),), path, input_names=("input",), output_names=("output",))
    return path.read_bytes()


def test_the_table_is_built_once_and_changes_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    holder = pytest.importorskip(operator_registry._MODULE).ONNXRegistry
    monkeypatch.setattr(operator_registry, "_built", {})
    first = exported(tmp_path / "first.onnx")
    (table,) = operator_registry._built.values()
    assert exported(tmp_path / "second.onnx") == first
    assert list(operator_registry._built.values()) == [table]
    # It is torch's own again afterwards.
    assert holder.from_torchlib(opset_version=18) is not table
    # Where torch keeps it elsewhere, exports are made all the same.
    monkeypatch.setattr(operator_registry, "_MODULE", "torch.onnx.nowhere")
    assert exported(tmp_path / "third.onnx") == first
