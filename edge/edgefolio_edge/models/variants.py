"""Variants of a manifest by size, version and name."""

from __future__ import annotations

from edgefolio.errors import UserError
from edgefolio.manifest import Manifest, Variant


def by_size(manifest: Manifest) -> tuple[Variant, ...]:
    """The variants that one server serves, smallest file first, so that a slow link has one to serve soonest."""
    return tuple(sorted(manifest.single_node, key=lambda variant: (variant.size_bytes, variant.rank)))


def variant_of_version(manifest: Manifest, version: int) -> Variant | None:
    """The variant of ``manifest`` that Triton serves as ``version``."""
    return next((variant for variant in manifest.single_node if manifest.version_of(variant) == version), None)


def split_named(manifest: Manifest, name: str | None) -> Variant:
    """The split called ``name``, or the most accurate one. Raises :class:`UserError` that lists those there are."""
    found = [variant for variant in manifest.splits if name in (None, variant.name)]
    if found:
        return found[-1]
    known = ", ".join(variant.name for variant in manifest.splits) or "none"
    raise UserError(
        f"revision {manifest.revision} of model {manifest.model!r} has no such split.",
        field="--variant",
        value=name,
        remedy=f"A set of workers serves a split: {known}. Without --worker-set any other variant is served.",
    )


def variant_named(manifest: Manifest, name: str) -> Variant:
    """The variant called ``name``. Raises :class:`UserError` that lists those that one server can serve."""
    found = next((variant for variant in manifest.variants if variant.name == name), None)
    if found is not None and found.split is None:
        return found
    known = ", ".join(variant.name for variant in manifest.single_node)
    problem = f"revision {manifest.revision} of model {manifest.model!r} has no such variant."
    if found is not None and found.split is not None:
        problem = f"it is a split over {found.split.workers} nodes, which one server alone does not serve."
    raise UserError(problem, field="--variant", value=name, remedy=f"Name one of: {known}.")
