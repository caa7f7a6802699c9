"""Variants of a manifest by size, version and name."""

from __future__ import annotations

from edgefolio.errors import UserError
from edgefolio.manifest import Manifest, Variant


def by_size(manifest: Manifest) -> tuple[Variant, ...]:
    """The manifest's variants, smallest file first, so that a slow link has one to serve soonest."""
    return tuple(sorted(manifest.variants, key=lambda variant: (variant.size_bytes, variant.rank)))


def variant_of_version(manifest: Manifest, version: int) -> Variant | None:
    """The variant of ``manifest`` that Triton serves as ``version``."""
    return next((variant for variant in manifest.variants if manifest.version_of(variant) == version), None)


def variant_named(manifest: Manifest, name: str) -> Variant:
    """The variant called ``name``. Raises :class:`UserError` that lists the known ones."""
    try:
        return manifest.variant(name)
    except KeyError:
        known = ", ".join(variant.name for variant in manifest.variants)
        raise UserError(
            f"revision {manifest.revision} of model {manifest.model!r} has no such variant.",
            field="--variant",
            value=name,
            remedy=f"Name one of: {known}.",
        ) from None
