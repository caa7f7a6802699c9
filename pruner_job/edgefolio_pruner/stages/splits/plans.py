"""The plans that are made of a split: searched for over its link, with times and losses measured once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from edgefolio import __version__
from edgefolio.specification.splitting import Split
from edgefolio_pruner.data.bundle import Split as Samples
from edgefolio_pruner.spatial import CapturedModel
from edgefolio_pruner.split.channels.fine_tuning import Tuning
from edgefolio_pruner.split.plan_making import PlanMaker
from edgefolio_pruner.split.result import Link, Question
from edgefolio_pruner.split.search.channel_ways import KEEPS
from edgefolio_pruner.split.search.layers import documents_of, timed_layers
from edgefolio_pruner.split.search.network import Network
from edgefolio_pruner.split.search.searching import Searched, search
from edgefolio_pruner.split.search.spec import PlanSpec

__all__ = ["question_of", "search_document", "search_key", "searched_of", "threads_of_torch", "tuning_of"]

#: Raised with each change of what a search gives.
_SEARCH = 1
_ELEMENT_BYTES = {"Float32": 4, "UInt8": 1}


def question_of(entry: Split) -> Question:
    """What an entry of ``methods.split`` asks of its plans."""
    return Question(
        shares=entry.shares,
        wire=entry.wire,
        layout=entry.layout,
        link=Link(
            bits_per_second=entry.link.bits_per_second,
            round_trip_milliseconds=float(entry.link.round_trip_milliseconds),
        ),
        most_loss_points=float(entry.max_accuracy_loss_points),
        most_waits=entry.most_waits,
        fine_tune_epochs=entry.fine_tune_epochs,
        precision=entry.precision,
    )


def search_key(asked: Question, *, state: str, calibration: int, threads: int) -> dict[str, Any]:
    """What the search depends on besides the source, for keys of kept results.

    Not the machine: times decide which plans are made, and a making that goes on elsewhere makes the same ones.
    """
    return {
        "state": state,
        "shares": list(asked.shares),
        "layout": asked.layout,
        "wire": asked.wire,
        "link": [asked.link.bits_per_second, asked.link.round_trip_milliseconds],
        "exchanges": asked.most_waits,
        "calibration": calibration,
        "threads": threads,
        "search": _SEARCH,
        "edgefolio": __version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def search_document(plans: PlanMaker, captured: CapturedModel, asked: Question) -> dict[str, Any]:
    """Time the layers, weigh the exchanges and search: a JSON document. Raises :class:`UserError` without a plan."""
    times = timed_layers(captured, asked.shares)
    losses = plans.whole.losses(KEEPS) if asked.layout != "Rows" else {}
    network = Network(
        bits_per_second=asked.link.bits_per_second,
        round_trip_milliseconds=asked.link.round_trip_milliseconds,
        element_bytes=_ELEMENT_BYTES[asked.wire],
    )
    found = search(
        captured,
        asked.shares,
        layout=asked.layout,
        times=times,
        losses=losses,
        network=network,
        most_waits=asked.most_waits,
    )
    return {
        "layerMilliseconds": documents_of(times),
        "losses": {place: list(lost) for place, lost in losses.items()},
        "plans": [spec.document() for spec in found.specs],
        "notes": list(found.notes),
    }


def searched_of(document: Mapping[str, Any]) -> Searched:
    """The plans of a document."""
    return Searched(specs=tuple(PlanSpec.read(each) for each in document["plans"]), notes=tuple(document["notes"]))


def tuning_of(asked: Question, train: Samples) -> Tuning | None:
    """How plans are fine-tuned, on all training samples; their labels are not read."""
    if not asked.fine_tune_epochs:
        return None

    def read(places: list[int]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(train.images[np.sort(np.asarray(places))]))

    return Tuning(epochs=asked.fine_tune_epochs, samples=train.samples, read=read)


@contextmanager
def threads_of_torch(threads: int) -> Iterator[None]:
    """So many threads for what torch computes."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
