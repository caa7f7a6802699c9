"""Rehearsal of a manifest: all that an agent makes of one, done once before the revision is taken.

A manifest may follow its schema and still hold what cannot be worked with: a probe whose values do not fit its element
type, a figure that no rule reckoned with. Found here, the revision is refused and the one that serves stays; found
later, each cycle would fail.
"""

from __future__ import annotations

import numpy as np

from edgefolio.decision import decide, profiles_from_manifest
from edgefolio.decision.types import Objectives, Observation, ServerState, State
from edgefolio.errors import IntegrityError
from edgefolio.manifest import Manifest
from edgefolio.specification.serving import Switching
from edgefolio_edge.models.probe import backend_probe, batch_of
from edgefolio_edge.models.triton_configuration import as_json, as_text, configuration_of

_IDLE = Observation(active_variant=None, resident_variants=(), server=ServerState.SERVING)


def require_usable(manifest: Manifest, *, location: str) -> None:
    """Raise :class:`IntegrityError` if the agent could not work with ``manifest``."""
    try:
        with np.errstate(over="raise", invalid="raise"):
            _rehearse(manifest)
    except Exception as error:  # whatever strangers' values make of it
        raise IntegrityError(
            f"the manifest cannot be worked with: {type(error).__name__}: {str(error)[:200]}.", location=location
        ) from error


def _rehearse(manifest: Manifest) -> None:
    decide(
        observation=_IDLE,
        objectives=Objectives(),
        profiles=profiles_from_manifest(manifest),
        switching=Switching(),
        state=State(),
        now=0.0,
    )
    versions = [manifest.version_of(variant) for variant in manifest.single_node]
    for warm_up in (False, True):
        configuration = configuration_of(
            manifest, model_name=manifest.model, threads=1, versions=versions, warm_up=warm_up
        )
        as_json(configuration)
        as_text(configuration).encode()
    for variant in manifest.variants:
        backend_probe(manifest, variant)
        batch_of(manifest, variant.probe, samples=1)
