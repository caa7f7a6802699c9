"""Column selection and ridge regression of linear maps on calibration data: matrices, no networks.

A linear map sends rows of ``d`` columns to ``o`` outputs: ``T ~ X W + b``. Columns are dropped in blocks (the k x k
taps of a convolution's input channel, the positions of a flattened channel, one unit of a dense layer). All work is
done on the second moments of (X, T), so its cost does not depend on the number of rows. The one-shot route uses it:
it drops the columns of a reader whose input channels are removed.
"""

from edgefolio_pruner.refit.factor import NotFiniteError
from edgefolio_pruner.refit.grouped import GroupedAccumulator
from edgefolio_pruner.refit.kept_channels import (
    Elimination,
    SelectionPart,
    eliminate_blocks,
    eliminate_jointly,
    select_blocks,
    selection_parts,
)
from edgefolio_pruner.refit.moments import MomentAccumulator, Moments, SplitMoments
from edgefolio_pruner.refit.quadratic import Quadratic, block_contributions, regularised_quadratic
from edgefolio_pruner.refit.solve import RIDGES, Refit, refit_columns
from edgefolio_pruner.refit.wide import GRAM_BYTES, GRAM_COLUMNS, ContributionAccumulator, ScaleAccumulator

__all__ = [
    "GRAM_BYTES",
    "GRAM_COLUMNS",
    "RIDGES",
    "ContributionAccumulator",
    "Elimination",
    "GroupedAccumulator",
    "MomentAccumulator",
    "Moments",
    "NotFiniteError",
    "Quadratic",
    "Refit",
    "ScaleAccumulator",
    "SelectionPart",
    "SplitMoments",
    "block_contributions",
    "eliminate_blocks",
    "eliminate_jointly",
    "refit_columns",
    "regularised_quadratic",
    "select_blocks",
    "selection_parts",
]
