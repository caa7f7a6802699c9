"""The one-shot route against Torch-Pruning at equal multiply-accumulates: as pruned, and after one epoch for both."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import safetensors.torch
import torch
from benchmarks.variants.bench import Bench
from benchmarks.variants.claims.half import NAME, PERCENTS
from benchmarks.variants.peers import torch_pruning as peer
from benchmarks.variants.peers.fine_tuning import fine_tuned
from benchmarks.variants.peers.normalization import re_estimated, restated
from benchmarks.variants.store import PRODUCT
from benchmarks.variants.tables.rows import Row
from torch import nn

from edgefolio_pruner.data import Split
from edgefolio_pruner.training.evaluation import evaluate

Json = dict[str, Any]
CLAIM = "torch-pruning"
#: Criteria that are fine-tuned: those with the best validation accuracy once their batch norms are re-estimated.
TUNED = 2
_PEER_CODE = ("benchmarks/variants/peers",)


def rows(bench: Bench) -> tuple[Row, ...]:
    """Points by which the one-shot variant is better than the best criterion, at each share and stage."""
    made = bench.one_shot(NAME, PERCENTS)
    found = []
    for percent in PERCENTS:
        ours = _ours(bench, percent, made[str(percent)]["sha256"])
        theirs = _theirs(bench, percent, made[str(percent)]["macs"])
        for stage in ("plain", "norms", "tuned"):
            best = max((one for one in theirs if stage in theirs[one]), key=lambda one: theirs[one][stage]["test"])
            own = ours["tuned" if stage == "tuned" else "plain"]
            detail = {
                "ours": own,
                "best": theirs[best][stage]["test"],
                "criterion": best,
                "macs": made[str(percent)]["macs"],
                "theirMacs": theirs[best]["macs"],
                "all": {name: one[stage]["test"] for name, one in theirs.items() if stage in one},
            }
            found.append(
                Row(
                    claim=CLAIM,
                    measure=f"{stage}-{percent}",
                    net=bench.name,
                    seed=bench.seed,
                    value=own - theirs[best][stage]["test"],
                    detail=detail,
                )
            )
    return tuple(found)


def _ours(bench: Bench, percent: int, sha256: str) -> Json:
    plain = bench.accuracy(bench.file_path(NAME, percent))

    def tune() -> Json:
        module = bench.dense()
        module.load_state_dict(safetensors.torch.load_file(bench.state_path(NAME, percent)))
        # Nothing that is zero because its channel went may come back.
        masks = {name: value != 0 for name, value in module.named_parameters()}
        ready = restated(module, bench.calibration)
        tuned = fine_tuned(ready, bench.net, bench.data, seed=bench.seed, masks=masks)
        return {"test": _percent(tuned, bench.data.test), "restated": _percent(ready, bench.data.test)}

    found = bench.store.stage(f"fine-tuned-{percent}", tune, code=(*PRODUCT, *_PEER_CODE), sha256=sha256)
    return {"plain": plain, "tuned": found["test"], "restated": found["restated"]}


def _theirs(bench: Bench, percent: int, macs: int) -> Json:
    """Per criterion its multiply-accumulates, and accuracy on validation and test for each stage that was run."""

    def work() -> Json:
        dense = bench.dense()
        data = bench.data
        held: dict[str, tuple[nn.Module, Json]] = {}
        given = {"none": None} | {
            kind: peer.gradients(dense, bench.calibration, _labels(bench), squared=kind == "squared")
            for kind in ("mean", "squared")
        }
        for name, criterion in peer.CRITERIA.items():
            pruned, left = peer.prune(
                dense, criterion, example=bench.example[0], macs=macs, given=given[criterion.gradients]
            )
            normed = re_estimated(pruned, bench.calibration)
            record = {"macs": left, "plain": {"test": _percent(pruned, data.test)}, "norms": _both(normed, data)}
            held[name] = (normed, record)
        best = sorted(held, key=lambda name: -held[name][1]["norms"]["validation"])[:TUNED]
        for name in best:
            module, record = held[name]
            record["tuned"] = _both(fine_tuned(module, bench.net, data, seed=bench.seed), data)
        return {name: record for name, (_, record) in held.items()}

    return bench.store.stage(
        f"torch-pruning-{percent}", work, code=_PEER_CODE, macs=macs, version=importlib.metadata.version(CLAIM)
    )


def _labels(bench: Bench) -> torch.Tensor:
    """The labels of the calibration images: the criteria with gradients need them, the one-shot route does not."""
    from edgefolio_pruner.randomness import shuffled

    count, train = len(bench.calibration), bench.data.train
    chosen = sorted(shuffled(train.samples, seed=bench.seed, stream="calibration")[:count])
    return torch.from_numpy(train.labels[chosen])


def _both(module: nn.Module, data: Any) -> Json:
    return {"validation": _percent(module, data.validation), "test": _percent(module, data.test)}


def _percent(module: nn.Module, split: Split) -> float:
    return round(100 * evaluate(module, split) / split.samples, 3)
