"""Lazy cache of the captured graph, shared by all candidates."""

from __future__ import annotations

from functools import cached_property

from edgefolio.errors import UserError
from edgefolio_pruner.inputs import MakingSource
from edgefolio_pruner.spatial import CapturedModel, capture, channel_groups


class GraphCache:
    """The graph of one source, with the weights that are given, or freshly initialised ones."""

    def __init__(self, source: MakingSource) -> None:
        self._source = source

    @cached_property
    def model(self) -> CapturedModel:
        """The network as it was captured, in float32."""
        given = self._source.initial_state
        # Given weights are held once; fresh ones are those of a module that nobody else has.
        module = self._source.build().eval() if given is None else self._source.build_with(given)
        return capture(module, self._source.example(), share_weights=True)

    def require_prunable(self) -> int:
        """The number of groups of channels that can be pruned. Raises :class:`UserError` if there are none."""
        groups = channel_groups(self.model)
        prunable = sum(group.prunable for group in groups)
        if not prunable:
            reasons = "; ".join(f"{group.name}: {group.reason}" for group in groups[:5]) or "it has none"
            raise UserError(
                f"the model has no prunable layer: no group of channels can be removed ({reasons}).",
                field="spec.source.architecture",
                value=self._source.description,
                remedy="Name a network with convolutions or hidden linear layers.",
            )
        return prunable
