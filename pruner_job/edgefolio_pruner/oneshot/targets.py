"""Pruning of one model to several targets, with one survey of its channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import fx

from edgefolio_pruner.available_memory import memory_to_plan_with, require_memory
from edgefolio_pruner.calibrating.graph_run import GraphRun, peak_bytes_per_sample
from edgefolio_pruner.calibrating.linear_maps import LinearMap, State
from edgefolio_pruner.network_inputs import Samples, by_input, count, first, pieces
from edgefolio_pruner.oneshot.attention.pairs import Unit
from edgefolio_pruner.oneshot.cascade import GroupSurvey, PrunedNet, survey_groups
from edgefolio_pruner.oneshot.costs.macs import CostModel
from edgefolio_pruner.oneshot.output_losses import output_losses
from edgefolio_pruner.oneshot.prunable_groups import PrunableGroup, channel_step
from edgefolio_pruner.oneshot.shares import GroupLosses, plan_shares
from edgefolio_pruner.progress import Progress


@dataclass(frozen=True)
class Weighting:
    """How predicted losses compare: their unit, and factors on them.

    ``last_over_first``: how much an error at the end weighs over one at the start, which later maps correct;
    ``streams``: whether streams may be cut.
    """

    unit: Unit
    last_over_first: float
    streams: bool


#: One plan each. None is best for all nets and targets.
WEIGHTINGS = (
    Weighting("output", 4.0, streams=True),
    Weighting("output", 8.0, streams=True),
    Weighting("own", 1.0, streams=True),
    Weighting("own", 1.0, streams=False),
    Weighting("own", 4.0, streams=False),
)
#: Bytes of activations held at a time, over all nets that run side by side; less where less is free.
MEMORY_BYTES = 2 * 1024**3
#: With fewer calibration samples nothing can be held out.
LEAST_SAMPLES = 8
#: Part of the free memory for them; the rest is for weights, sums and what comes between.
_SHARE_OF_ACTIVATIONS = 4
#: Samples that go through the graph together.
CHUNK_SAMPLES = 64
#: A net that keeps more of the dense one's time than this is no faster: the table errs by as much.
LEAST_TIME_SAVED = 0.02


@dataclass(frozen=True, eq=False)
class Target:
    """A share that a variant may keep of the dense model's cost: multiply-accumulates, or measured time."""

    by: Literal["macs", "latency"]
    percent: int
    model: CostModel

    @property
    def dense(self) -> float:
        """The dense model's cost."""
        return self.model.cost(self.model.channels)

    def left(self, dropped: Mapping[str, int]) -> float:
        """The cost that a plan leaves."""
        return self.model.cost({name: count - dropped.get(name, 0) for name, count in self.model.channels.items()})


@dataclass(frozen=True)
class Plan:
    """The number of channels that each group loses, by the ranks of one unit."""

    unit: Unit
    dropped: Mapping[str, int]


Surveys = Mapping[Unit, Mapping[str, GroupSurvey]]


class TargetPruner:
    """All variants of one model on one set of calibration samples; :meth:`run` once."""

    def __init__(
        self,
        graph: fx.Graph,
        state: State,
        *,
        groups: Sequence[PrunableGroup],
        maps: Sequence[LinearMap],
        calibration: Samples,
        targets: Sequence[Target],
        seed: int,
        progress: Progress,
    ) -> None:
        self._graph = graph
        self._state = state
        self._groups = groups
        self._maps = maps
        self._targets = tuple(targets)
        self._seed = seed
        self._progress = progress
        self._steps_done = 0
        #: An upper bound until the plans for each target are known.
        self._candidates = len(self._targets) * len(WEIGHTINGS)
        per_sample = peak_bytes_per_sample(self._graph, self._state, first(calibration, 2))
        memory = min(MEMORY_BYTES, memory_to_plan_with() // _SHARE_OF_ACTIVATIONS)
        require_memory(
            int(2 * LEAST_SAMPLES * per_sample),
            what=f"{LEAST_SAMPLES} samples on their way through the network",
            field="spec.methods.oneShot",
            value=", ".join(f"{tuple(given.shape[1:])}" for given in by_input(calibration)),
        )
        self.samples = max(LEAST_SAMPLES, min(count(calibration), int(memory / (2 * per_sample))))
        weights = sum(tensor.numel() * tensor.element_size() for tensor in self._state.values())
        self._side_by_side = max(1, int(memory / (self.samples * per_sample + weights)) - 1)
        self._chunks = pieces(first(calibration, self.samples), CHUNK_SAMPLES)
        self.notes: list[str] = []
        if self.samples < count(calibration):
            self.notes.append(
                f"{self.samples} of {count(calibration)} calibration samples were used: more do not fit into memory"
            )

    def run(self) -> dict[Target, PrunedNet | str]:
        """Rank, allocate, prune and re-fit: one net per target, or the reason why there is none of use.

        Several plans are made for each target, and the net with the least error at its end is taken.
        """
        losses = output_losses(self._graph, self._state, self._chunks, self._maps, seed=self._seed)
        surveys = survey_groups(
            self._graph,
            self._state,
            self._chunks,
            self._maps,
            self._groups,
            output_losses=losses,
            seed=self._seed,
            done=self._reporter("ranked"),
        )
        inexact = [name for name, found in surveys[WEIGHTINGS[0].unit].items() if not found.elimination.exact]
        if inexact:
            self.notes.append(
                f"too wide, or too few samples, for exact selection; ranked by contribution: {', '.join(inexact)}"
            )
        plans: dict[Target, list[Plan]] = {}
        found: dict[Target, PrunedNet | str] = {}
        for target in self._targets:
            plans[target] = self._plans(target, surveys)
            reason = self._useless(target, plans)
            if reason:
                found[target] = reason
                del plans[target]
        self._candidates = sum(map(len, plans.values()))
        return found | {target: self._best(candidates, surveys) for target, candidates in plans.items()}

    def _useless(self, target: Target, plans: Mapping[Target, list[Plan]]) -> str:
        """Why a target by time yields no variant of its own; empty if it does."""
        if target.by == "macs":
            return ""
        if all(target.left(plan.dropped) > (1 - LEAST_TIME_SAVED) * target.dense for plan in plans[target]):
            return "no removal of channels makes the model faster here"
        same = [other for other, known in plans.items() if other is not target and known == plans[target]]
        return f"latencyPercent {same[0].percent} is the same variant" if same else ""

    def _best(self, plans: Sequence[Plan], surveys: Surveys) -> PrunedNet:
        """Prune and re-fit by each of ``plans``; only the net with the least error is kept."""
        best: list[PrunedNet] = []
        for start in range(0, len(plans), self._side_by_side):
            batch = [
                PrunedNet(
                    self._graph,
                    self._state,
                    self._chunks,
                    self._maps,
                    self._groups,
                    survey=surveys[plan.unit],
                    dropped=plan.dropped,
                )
                for plan in plans[start : start + self._side_by_side]
            ]
            self._cascade(batch)
            best = [min(best + batch, key=lambda net: net.error)]
            best[0].end_run()
        return best[0]

    def _plans(self, target: Target, surveys: Surveys) -> list[Plan]:
        """The different plans for a target: those that reach it, else those that come nearest."""
        allowed = target.dense * target.percent / 100
        different: list[Plan] = []
        for weighting in WEIGHTINGS:
            losses = self._weighted(surveys[weighting.unit], weighting)
            plan = Plan(weighting.unit, plan_shares(losses, model=target.model, target=allowed))
            if plan not in different:
                different.append(plan)
        reached = max(allowed, min(target.left(plan.dropped) for plan in different))
        return [plan for plan in different if target.left(plan.dropped) <= reached * (1 + 1e-9)]

    def _weighted(self, survey: Mapping[str, GroupSurvey], weighting: Weighting) -> list[GroupLosses]:
        last = max(1, len(self._groups) - 1)
        found: list[GroupLosses] = []
        for index, group in enumerate(self._groups):
            factor = weighting.last_over_first ** (index / last)
            cut = weighting.streams or group.group.kind == "inner"
            increases = tuple(factor * loss for loss in survey[group.name].losses) if cut else ()
            found.append(GroupLosses(group.name, increases, channel_step(group.channels)))
        return found

    def _cascade(self, nets: list[PrunedNet]) -> None:
        hold = [pair for linear in self._maps for pair in linear.held]
        original = GraphRun(self._graph, self._state, self._chunks, hold=hold)
        report = self._reporter("re-fitted")
        for index, linear in enumerate(self._maps):
            original.advance(linear.end)
            for net in nets:
                net.refit(linear, original, seed=self._seed + index)
                report(linear.layer)

    def _reporter(self, what: str) -> Callable[[str], None]:
        steps = len(self._groups) + len(self._maps) * self._candidates

        def report(layer: str) -> None:
            self._steps_done += 1
            self._progress(stage="one-shot", fraction=self._steps_done / steps, message=f"{what} {layer}")

        return report
