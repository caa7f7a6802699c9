"""HTML report: one file with inline style and figures."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from edgefolio.files import write_durably
from edgefolio.manifest import Manifest, sha256_of
from edgefolio.uris import redacted
from edgefolio_pruner.html_report import classes, layers, splits, view
from edgefolio_pruner.html_report.drawing import colour_of
from edgefolio_pruner.html_report.pareto import draw_pareto
from edgefolio_pruner.html_report.split_plot import draw_splits
from edgefolio_pruner.html_report.timeline import RunTimeline
from edgefolio_pruner.html_report.timeline_plot import draw_load


def write_report(manifest: Manifest, path: Path, *, timeline: RunTimeline | None = None) -> Path:
    """Write the report of ``manifest`` to ``path``, with the run's ``timeline`` where there is one; returns ``path``.

    The file needs nothing from outside and follows the reader's light or dark setting. Raises
    :class:`~edgefolio.errors.UserError` if it cannot be written.
    """
    write_durably(path, render_report(manifest, timeline=timeline).encode(), field="--report")
    return path


def render_report(manifest: Manifest, *, timeline: RunTimeline | None = None) -> str:
    """The report as text."""
    environment = Environment(
        loader=PackageLoader("edgefolio_pruner.html_report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    layer_variants, layer_rows = layers.layer_rows(manifest)
    class_variants, class_rows = classes.class_rows(manifest)
    names = [variant.name for variant in manifest.variants]
    loads = [] if timeline is None else list(timeline.loads)
    return environment.get_template("report.html.jinja").render(
        manifest=manifest,
        made=view.readable_time(manifest.created),
        manifest_digest=sha256_of(manifest.to_bytes()),
        profile=manifest.variants[-1].profiles[0],
        headline=view.headline(manifest),
        rows=view.variant_rows(manifest),
        has_classes=any(variant.test_classes is not None for variant in manifest.variants) or manifest.score is None,
        score_sentence=view.score_sentence(manifest),
        proofs=view.proof_rows(manifest),
        lineage=view.lineage(manifest),
        layer_variants=layer_variants,
        layers=layer_rows,
        splits=splits.split_rows(manifest),
        split_plot=Markup(draw_splits(manifest)),
        strips=layers.layer_strips(manifest),
        class_variants=class_variants,
        class_rows=class_rows,
        shown_at_once=classes.SHOWN_AT_ONCE,
        colour_of=colour_of,
        training_uri=redacted(manifest.data.training_uri),
        specification=view.specification_text(manifest),
        # The figures are drawn here; their texts were escaped when they were drawn.
        pareto=Markup(draw_pareto(manifest)),
        timeline=timeline,
        load_figures=[
            Markup(draw_load(load, variants=names, name=f"load{position}", tall=position == 0))
            for position, load in enumerate(loads)
        ],
    )
