"""Int8 twins of exported float models: calibration, ONNX Runtime's quantizer, and which layers stay float."""

from edgefolio_pruner.quantization.calibration import require_calibration
from edgefolio_pruner.quantization.comparison import compare_answers, compare_files
from edgefolio_pruner.quantization.float_layers import Refusal
from edgefolio_pruner.quantization.sensitivity import outputs_of
from edgefolio_pruner.quantization.twin import Twin, make_twin

__all__ = ["Refusal", "Twin", "compare_answers", "compare_files", "make_twin", "outputs_of", "require_calibration"]
