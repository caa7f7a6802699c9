"""The claims as goals: what is measured, on which networks, and what it must and should be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CNNS = ("resnet20", "resnet8", "vgg11", "mobilenetv2")
#: Where sparse levels and a network from random weights are trained too, for their time.
TRAINED_ON = ("resnet8", "vgg11")


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One measure of a claim. ``must`` and ``aim`` hold a bound per network, an upper one if ``lower``."""

    claim: str
    measure: str
    title: str
    unit: str
    lower: bool
    must: Mapping[str, float]
    aim: Mapping[str, float] = field(default_factory=dict)

    def met(self, net: str, value: float) -> bool:
        """Whether ``value`` meets the must of ``net``."""
        bound = self.must[net]
        return value <= bound if self.lower else value >= bound


def _all(value: float, nets: tuple[str, ...] = CNNS) -> dict[str, float]:
    return dict.fromkeys(nets, value)


GOALS: tuple[Goal, ...] = (
    Goal(
        claim="half",
        measure="loss",
        title="One-shot, half of the MACs, 512 unlabelled images, no training: below dense",
        unit="points",
        lower=True,
        must={"resnet20": 1.5, "resnet8": 0.7, "vgg11": 0.5, "mobilenetv2": 2.0},
        aim={"resnet20": 0.8, "resnet8": 0.4, "vgg11": 0.2, "mobilenetv2": 1.0},
    ),
    *(
        Goal(
            claim="torch-pruning",
            measure=f"{stage}-{percent}",
            title=f"Better than Torch-Pruning's best criterion at {percent} % of the MACs, {words}",
            unit="points",
            lower=False,
            must=_all(bound),
        )
        for percent, tuned in ((50, 1.5), (25, 3.0))
        for stage, words, bound in (
            ("plain", "without fine-tuning", 50.0),
            ("norms", "its batch norms re-estimated", 18.0),
            ("tuned", "both after one epoch of fine-tuning", tuned),
        )
    ),
    Goal(
        claim="int8",
        measure="speed",
        title="int8 twin of the dense model against its float file, batch 32",
        unit="x",
        lower=False,
        must=_all(1.8, ("vgg11", "resnet8", "resnet20")),
        aim=_all(2.5, ("vgg11", "resnet8", "resnet20")),
    ),
    Goal(
        claim="int8",
        measure="loss",
        title="int8 twin of the dense model: accuracy lost",
        unit="points",
        lower=True,
        must=_all(0.15, ("vgg11", "resnet8", "resnet20")),
        aim=_all(0.05, ("vgg11", "resnet8", "resnet20")),
    ),
    *(
        Goal(
            claim="within-one-point",
            measure=f"speed-{batch}",
            title=f"One-shot and int8 within 1 point of dense: faster than the dense float file, batch {batch}",
            unit="x",
            lower=False,
            must=_all(4.0),
            aim=_all(8.0),
        )
        for batch in (1, 32)
    ),
    Goal(
        claim="portfolio",
        measure="speed",
        title="Fastest published variant within 2 points of dense: faster than the dense float file",
        unit="x",
        lower=False,
        must=_all(8.0, TRAINED_ON),
        aim=_all(15.0, TRAINED_ON),
    ),
    Goal(
        claim="portfolio",
        measure="size",
        title="Fastest published variant within 2 points of dense: smaller than the dense float file",
        unit="x",
        lower=False,
        must=_all(16.0, TRAINED_ON),
        aim=_all(40.0, TRAINED_ON),
    ),
    Goal(
        claim="sparsest",
        measure="size",
        title="Sparsest variant, at its sparse parent's accuracy or better: smaller than the parent",
        unit="x",
        lower=False,
        must=_all(17.0, TRAINED_ON),
        aim=_all(25.0, TRAINED_ON),
    ),
    Goal(
        claim="sparsest",
        measure="speed",
        title="Sparsest variant, at its sparse parent's accuracy or better: faster than the parent",
        unit="x",
        lower=False,
        must=_all(3.0, TRAINED_ON),
        aim=_all(6.0, TRAINED_ON),
    ),
    Goal(
        claim="time",
        measure="faster",
        title="Five variants after the dense model: time of each against training one of them alone to its accuracy",
        unit="x",
        lower=False,
        must=_all(100.0, TRAINED_ON),
        aim=_all(300.0, TRAINED_ON),
    ),
    Goal(
        claim="transformer",
        measure="loss",
        title="Half of the MLP units and heads, no training: below dense",
        unit="points",
        lower=True,
        must={"vit": 2.0},
        aim={"vit": 1.0},
    ),
)
CLAIMS: tuple[str, ...] = tuple(dict.fromkeys(goal.claim for goal in GOALS))
