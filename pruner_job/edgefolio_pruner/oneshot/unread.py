"""Groups that nothing reads any more, once others have lost all their channels: the exact pruning removes them too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgefolio_pruner.calibrating.linear_maps import State
from edgefolio_pruner.oneshot.prunable_groups import PrunableGroup


def with_unread(groups: Sequence[PrunableGroup], dropped: Mapping[str, int], state: State) -> dict[str, int]:
    """``dropped`` channels per group, and all of those groups whose readers write nothing any more."""
    found = dict(dropped)
    while True:
        gone: dict[str, set[int]] = {}
        for group in groups:
            if found[group.name] == group.channels:
                for part in group.group.writers:
                    if part.axis == 0:
                        gone.setdefault(part.parameter, set()).update(*part.indices)
        unread = [
            group.name for group in groups if found[group.name] < group.channels and _is_unread(group, gone, state)
        ]
        if not unread:
            return found
        found |= {group.name: group.channels for group in groups if group.name in unread}


def _is_unread(group: PrunableGroup, gone: Mapping[str, set[int]], state: State) -> bool:
    if group.attention is not None:
        value = group.attention.value
        return {row for rows in value.indices for row in rows} <= gone.get(value.weight, set())
    readers = {read.linear.weight for read in group.reads}
    return bool(readers) and all(len(gone.get(weight, ())) == len(state[weight]) for weight in readers)
