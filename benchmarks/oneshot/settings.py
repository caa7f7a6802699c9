"""What is measured. Nothing of it is chosen by looking at the test images."""

from __future__ import annotations

from benchmarks.portfolio.settings import Network, Settings

from edgefolio.specification import SparseTraining

#: What half of the inner channels of every block leaves of the multiply-accumulates (51.4 %), rounded down.
HALF_MACS_PERCENT = 51
#: Targets of one call beside that.
LADDER = (50, 35, 25)
ONESHOT = Settings(
    networks=(Network(name="ResNet-8", architecture="resnet8", width=32),),
    # All but those held out for validation; three seeds take a quarter of an hour of one core.
    training_samples=54_000,
    # The dense model alone.
    sparse_training=SparseTraining(dense_epochs=3, levels=0),
    macs_percents=(HALF_MACS_PERCENT, *LADDER),
)
