"""Builder of the Job that measures a published revision on a node of another class.

It runs where endpoints run, with the publisher's credentials: it writes a profile beside the manifest. One container
measures nothing but the variants, on as many threads as the manifest says.
"""

from __future__ import annotations

from edgefolio.specification.portfolio_status import RevisionStatus
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator import labels
from edgefolio_operator.kube.objects import Document
from edgefolio_operator.resources.pruning_job import Images, localized
from edgefolio_operator.resources.repository_jobs import repository_job
from edgefolio_operator.revisions.profiling import Measurement, selector_key

#: Deadline of a measurement, fetching and waiting for a node included.
LONGEST_PROFILE_SECONDS = 1800


def build_profile_job(
    portfolio: ModelPortfolio, measurement: Measurement, *, revision: RevisionStatus, owner: Document, images: Images
) -> Document:
    """The Job that measures ``revision`` on one of the nodes of ``measurement``."""
    spec = portfolio.spec
    managed, settings = spec.serving.managed, spec.job
    arguments = [
        str(localized(spec.repository.uri)),
        spec.serving.model_name,
        "--revision",
        str(revision.number),
        "--manifest-digest",
        revision.manifest_digest,
        "--samples",
        str(spec.profiling.samples),
        "--rounds",
        str(spec.profiling.rounds),
    ]
    if spec.repository.verification_key is not None:
        arguments += ["--verification-key", spec.repository.verification_key]
    tolerations = {entry.model_dump_json(): entry for entry in (*managed.tolerations, *settings.tolerations)}
    job = repository_job(
        portfolio,
        settings.model_copy(
            update={
                "node_selector": measurement.nodes.node_selector,
                "tolerations": tuple(tolerations.values()),
                "image_pull_secrets": settings.image_pull_secrets or managed.image_pull_secrets,
            }
        ),
        name=measurement.job,
        component=labels.PROFILE_COMPONENT,
        image=settings.image or images.pruner,
        command=["python3", "-m", "edgefolio_pruner.profile_job", *arguments],
        longest_seconds=LONGEST_PROFILE_SECONDS,
        attempts=1,
        read_only=False,
        granted={"requests": {"cpu": "500m", "memory": "256Mi"}},
    )
    reading = spec.repository.read_secret_ref
    if spec.repository.secret_ref is None and reading is not None:
        # Where nothing may be written, a profile that is there is found.
        job["spec"]["template"]["spec"]["containers"][0]["envFrom"] = [{"secretRef": {"name": reading.name}}]
    job["metadata"]["ownerReferences"] = [owner]
    job["metadata"]["annotations"] = {labels.HASH_ANNOTATION: selector_key(measurement.nodes)}
    return job
