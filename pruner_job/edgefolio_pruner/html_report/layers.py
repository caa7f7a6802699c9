"""View model of the layers: channels kept in each variant, and what computes in int8."""

from __future__ import annotations

from dataclasses import dataclass

from edgefolio.manifest import Manifest, Variant
from edgefolio_pruner.html_report.drawing import colour_of


@dataclass(frozen=True, kw_only=True)
class LayerCell:
    """Channels of one layer in one variant; ``share`` in percent of the channels before."""

    after: int | None
    share: float
    colour: str


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One layer over all variants."""

    name: str
    before: int
    cells: tuple[LayerCell, ...]


@dataclass(frozen=True, kw_only=True)
class StripBox:
    """One layer in a variant's strip, filled to the share of channels that it keeps; ``title`` is shown on hovering."""

    share: float
    is_int8: bool
    title: str


@dataclass(frozen=True, kw_only=True)
class Strip:
    """All layers of one variant in their order.

    ``still_float`` names the layers of a quantized one that stay float as its file calls them, which has own names.
    """

    name: str
    colour: str
    precision: str
    still_float: tuple[str, ...]
    boxes: tuple[StripBox, ...]


def precision_of(variant: Variant) -> str:
    """``float32`` or ``int8``."""
    return variant.precision.lower()


def layer_rows(manifest: Manifest) -> tuple[list[Variant], list[LayerRow]]:
    """The variants whose channels are known, most accurate first, and every layer that lost channels in one of them."""
    variants = [variant for variant in reversed(manifest.variants) if variant.layers]
    found = {variant.name: {layer.name: layer for layer in variant.layers} for variant in variants}
    rows = []
    for name in _layer_names(manifest):
        layers = [found[variant.name].get(name) for variant in variants]
        before = max(layer.before for layer in layers if layer is not None)
        if all(layer is None or layer.after == layer.before for layer in layers):
            continue
        rows.append(
            LayerRow(
                name=name,
                before=before,
                cells=tuple(
                    LayerCell(
                        after=None if layer is None else layer.after,
                        share=0.0 if layer is None or before == 0 else 100 * layer.after / before,
                        colour=colour_of(variant.rank - 1),
                    )
                    for variant, layer in zip(variants, layers, strict=True)
                ),
            )
        )
    return variants, rows


def layer_strips(manifest: Manifest) -> list[Strip]:
    """One strip for each variant, most accurate first; a variant without record of its layers keeps all channels."""
    widths = {layer.name: layer.before for variant in manifest.variants for layer in variant.layers}
    strips = []
    for variant in reversed(manifest.single_node):
        kept = {layer.name: layer.after for layer in variant.layers}
        precision = precision_of(variant)
        still_float = () if variant.quantization is None else variant.quantization.float_layers
        float_names = tuple(layer.name for layer in still_float)
        boxes = []
        for name in _layer_names(manifest):
            before = widths[name]
            after = kept.get(name, 0 if variant.layers else before)
            is_int8 = precision == "int8" and name not in float_names
            boxes.append(
                StripBox(
                    share=100 * after / before if before else 0.0,
                    is_int8=is_int8,
                    title=f"{name}: {after} of {before} channels, {'int8' if is_int8 else 'float'}",
                )
            )
        strips.append(
            Strip(
                name=variant.name,
                colour=colour_of(variant.rank - 1),
                precision=precision,
                still_float=float_names,
                boxes=tuple(boxes),
            )
        )
    return strips


def _layer_names(manifest: Manifest) -> list[str]:
    return list(dict.fromkeys(layer.name for variant in reversed(manifest.variants) for layer in variant.layers))
