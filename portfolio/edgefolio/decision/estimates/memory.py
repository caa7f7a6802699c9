"""Memory bounds: the objective, the server's limit, and old + new variant during a switch."""

from __future__ import annotations

from dataclasses import dataclass

from edgefolio.decision.estimates.prediction import LARGEST_BYTES
from edgefolio.decision.types import MEMORY_PRESSURE, MemoryState, Observation, VariantProfile

#: The node must keep this much after a variant was loaded, or the kubelet or the kernel starts to kill.
NODE_RESERVE_BYTES = 32 * 2**20


@dataclass(frozen=True, kw_only=True)
class MemoryBounds:
    """Usable bytes: by one variant in place of all loaded ones, on top of the active one, and on top of all.

    ``None`` is unbounded. ``resident`` variants cost nothing more. ``extra_bytes`` counts what a standby takes as
    usable, since it is unloaded where a switch needs its room; ``beside_bytes`` does not. While the node is short of
    memory nothing is loaded that needs more than ``largest_bytes``; ``extra_where`` says in a few words what sets
    ``extra_bytes``.
    """

    alone_bytes: float | None
    extra_bytes: float | None
    resident: frozenset[str]
    beside_bytes: float | None = None
    largest_bytes: float | None = None
    extra_where: str = ""

    def fits_alone(self, profile: VariantProfile) -> bool:
        """Whether this variant fits once the others are unloaded."""
        return self.alone_bytes is None or needed_bytes(profile) <= self.alone_bytes

    def fits_during_switch(self, profile: VariantProfile) -> bool:
        """Whether it fits beside the loaded variants."""
        if profile.name in self.resident:
            return True
        if self.is_too_large(profile):
            return False
        return self.extra_bytes is None or needed_bytes(profile) <= self.extra_bytes

    def fits_beside_all(self, profile: VariantProfile) -> bool:
        """Whether it fits beside everything that is loaded, a standby included."""
        if profile.name in self.resident:
            return True
        return not self.is_too_large(profile) and (
            self.beside_bytes is None or needed_bytes(profile) <= self.beside_bytes
        )

    def is_too_large(self, profile: VariantProfile) -> bool:
        """Whether the node's shortage keeps it out."""
        return self.largest_bytes is not None and needed_bytes(profile) > self.largest_bytes


def needed_bytes(profile: VariantProfile) -> int:
    """Peak memory of a variant above the empty server, reached at load."""
    return max(profile.memory_peak_bytes, profile.memory_steady_bytes)


def memory_bounds(
    observation: Observation,
    profiles: tuple[VariantProfile, ...],
    *,
    headroom_percent: float,
) -> MemoryBounds:
    """The bounds that ``observation`` sets; of the server's limit ``headroom_percent`` is kept free."""
    resident = frozenset(observation.resident_variants)
    if observation.active_variant is not None:
        resident |= {observation.active_variant}
    memory, largest = observation.memory, _largest_under_pressure(observation, profiles)
    if memory is None:
        return MemoryBounds(alone_bytes=None, extra_bytes=None, resident=resident, largest_bytes=largest)
    limit, used, node = (
        _bytes(memory.limit_bytes),
        _bytes(memory.working_set_bytes),
        _bytes(memory.node_available_bytes),
    )
    loaded = sum(profile.memory_steady_bytes for profile in profiles if profile.name in resident)
    alone: float | None = None
    extra: float | None = None
    where = ""
    if limit is not None:
        usable = limit * (1 - headroom_percent / 100)
        # Without a working set at least the loaded variants are known.
        extra = usable - (loaded if used is None else used)
        alone = usable - max(0.0, (used or 0.0) - loaded)
    if node is not None:
        free = node - NODE_RESERVE_BYTES
        # Others' reservations last for one switch; what stays resident then shows in the node's own figure.
        reserved = (_bytes(observation.node.reserved_bytes) or 0.0) if observation.node is not None else 0.0
        if extra is None or free - reserved < extra:
            extra = free - reserved
            where = " on the node" + (f", {mebibytes(reserved)} are promised to other switches" if reserved else "")
        in_place = free + loaded
        alone = in_place if alone is None else min(alone, in_place)
    # Old and new answer at the same time for a moment, each through shared memory of its own.
    if extra is not None:
        extra -= _bytes(memory.shared_memory_bytes) or 0.0
    standby = sum(
        profile.memory_steady_bytes
        for profile in profiles
        if observation.active_variant not in (None, profile.name) and profile.name in resident
    )
    return MemoryBounds(
        alone_bytes=alone,
        extra_bytes=None if extra is None else extra + standby,
        beside_bytes=extra,
        resident=resident,
        largest_bytes=largest,
        extra_where=where,
    )


def is_short_of_memory(observation: Observation) -> bool:
    """Whether the node reports MemoryPressure."""
    return observation.node is not None and MEMORY_PRESSURE in observation.node.pressures


def is_room_for_one(memory: MemoryState | None, profile: VariantProfile) -> bool:
    """Whether the node has memory left for fewer than two loads of this size."""
    node = None if memory is None else _bytes(memory.node_available_bytes)
    return node is not None and node - NODE_RESERVE_BYTES < 2 * needed_bytes(profile)


def exceeds_limit(memory: MemoryState | None, *, headroom_percent: float) -> bool:
    """Whether the server has eaten into the headroom under its limit: an emergency."""
    if memory is None:
        return False
    limit, used = _bytes(memory.limit_bytes), _bytes(memory.working_set_bytes)
    return limit is not None and used is not None and used > limit * (1 - headroom_percent / 100)


def mebibytes(amount: float | None) -> str:
    """``amount`` bytes for people: "12.5 MiB"."""
    if amount is None or not -LARGEST_BYTES <= amount <= LARGEST_BYTES:
        return "unknown"
    return f"{amount / 2**20:.1f} MiB" if amount < 2**60 else f"{amount:.3g} B"


def _largest_under_pressure(observation: Observation, profiles: tuple[VariantProfile, ...]) -> float | None:
    """Limit while the node is short of memory: the active variant's need, or the smallest's if none is active."""
    if not is_short_of_memory(observation) or not profiles:
        return None
    active = [needed_bytes(profile) for profile in profiles if profile.name == observation.active_variant]
    # A shard alone answers nothing.
    alone = [profile for profile in profiles if profile.split is None]
    return float(min(active or map(needed_bytes, alone or profiles)))


def _bytes(value: int | None) -> float | None:
    return float(value) if value is not None and 0 <= value <= LARGEST_BYTES else None
