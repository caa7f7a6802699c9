"""ONNX export of a torch module, and the parity proof."""

from edgefolio_pruner.export.evaluation_mode import evaluating, flat_outputs
from edgefolio_pruner.export.onnx_file import ExportedModel, export_onnx, write_atomically
from edgefolio_pruner.export.parity import Parity, parity

__all__ = ["ExportedModel", "Parity", "evaluating", "export_onnx", "flat_outputs", "parity", "write_atomically"]
