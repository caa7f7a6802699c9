"""The user's own weights as the dense model."""

from __future__ import annotations

import safetensors.torch

from edgefolio.files import write_durably
from edgefolio_pruner.inputs import MakingSource
from edgefolio_pruner.methods.base import DENSE, CandidateWeights
from edgefolio_pruner.training import state_digest
from edgefolio_pruner.work.directory import WorkDirectory


def given_weights(source: MakingSource, work: WorkDirectory) -> CandidateWeights:
    """The weights that the portfolio names, kept in the work directory."""
    assert source.initial_state is not None
    assert source.initial_digest is not None
    path = work.folder("given", source.record) / "dense.safetensors"
    if not path.is_file() or state_digest(safetensors.torch.load_file(path)) != source.initial_digest:
        write_durably(path, safetensors.torch.save(dict(source.initial_state)), field="--work-dir")
    return CandidateWeights(
        name=DENSE,
        parent=None,
        method=dense_method(source),
        path=path,
        digest=source.initial_digest,
        settings={},
        seconds=None,
        held=source.initial_state,
    )


def dense_method(source: MakingSource) -> str:
    """Provenance of the dense model."""
    return "dense training" if source.initial_state is None else "given weights"
