"""Labels are never read by what plans, prunes, adjusts and tunes: noise in their place changes no byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from divided_nets import captured_net
from generated_nets import samples

from edgefolio.specification import DataSpecification
from edgefolio_pruner.data import DataBundle
from edgefolio_pruner.data.loading import load_data
from edgefolio_pruner.split.plan_making import PlanMaker
from edgefolio_pruner.split.result import Link, Question
from edgefolio_pruner.split.search.spec import PlanSpec
from edgefolio_pruner.stages.splits.plans import tuning_of

ASKED = Question(
    shares=(50, 50),
    wire="UInt8",
    link=Link(bits_per_second=1e9, round_trip_milliseconds=0.0),
    most_loss_points=1.0,
    fine_tune_epochs=1,
)


def data(seed: int) -> DataBundle:
    """The same samples, with labels by chance."""
    bundle = load_data(DataSpecification(training_uri="builtin:digits"), seed=0)
    labels = np.random.default_rng(seed).integers(0, 10, 512)
    return replace(bundle, train=replace(bundle.train, images=samples(number=512).numpy(), labels=labels))


def planned(bundle: DataBundle) -> tuple[bytes, Mapping[str, bytes]]:
    maker = PlanMaker(
        captured_net("residual", "concatenation"),
        torch.from_numpy(bundle.calibration(128, seed=0)),
        shares=ASKED.shares,
        tuning=tuning_of(ASKED, bundle.train),
    )
    places = [exchange.point.place for exchange in maker.whole.survey.exchanges]
    keeps = tuple((place, 0.3) for place in places)
    spec = PlanSpec(layout="Channels", keeps=keeps, milliseconds=1.0, loss=0.0, waits=0)
    made = maker.made(spec, wire=ASKED.wire).made
    return made.plan.to_bytes(), made.files


def test_noise_instead_of_labels_changes_no_byte() -> None:
    torch.set_num_threads(1)
    first, second = data(1), data(2)
    assert (first.train.labels != second.train.labels).mean() > 0.5
    assert planned(first) == planned(second)
