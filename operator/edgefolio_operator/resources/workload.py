"""Objects that a portfolio in mode ``Managed`` needs besides its endpoints, where they are missing or were changed.

Settings that changed are written by this version. What somebody else changed is put back as it was applied: pods that
this version would build otherwise must not restart for that.
"""

from __future__ import annotations

import json
from collections.abc import Set

from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator import labels
from edgefolio_operator.kube.objects import Document, Object, annotations_of
from edgefolio_operator.kube.server_version import ServerVersion
from edgefolio_operator.resources.daemonset import build_access, build_daemon_set, build_service, serves_http
from edgefolio_operator.resources.pruning_job import Images


def workload_documents(
    portfolio: ModelPortfolio,
    *,
    owner: Document,
    images: Images,
    server_version: ServerVersion,
    service: Object | None,
    daemon_set: Object | None,
    missing: Set[str],
    drifted: Set[str],
) -> list[Document]:
    """Service, access and DaemonSet to write. ``service`` and ``daemon_set`` are the stored ones.

    ``missing`` are kinds of the access that do not exist, ``drifted`` kinds that somebody else changed.
    """
    if portfolio.spec.serving.mode != "Managed":
        return []
    documents: list[Document] = []
    # Of a DaemonSet that somebody deleted, its Service still says whether HTTP is to go on.
    stored = daemon_set or service
    wanted_service = build_service(portfolio, owner=owner, server_version=server_version, stored=stored)
    if portfolio.spec.serving.http is None and serves_http(portfolio, stored=stored):
        wanted_service["metadata"]["annotations"][labels.HTTP_INHERITED_ANNOTATION] = "true"
    if _differs(service, wanted_service) or "Service" in drifted:
        documents.append(wanted_service)
    wanted = build_daemon_set(portfolio, owner=owner, images=images, stored=stored)
    is_new = _differs(daemon_set, wanted)
    documents += [entry for entry in build_access(portfolio) if is_new or entry["kind"] in {*missing, *drifted}]
    if is_new:
        documents.append(with_record(wanted))
    elif "DaemonSet" in drifted and (restored := restored_daemon_set(wanted, daemon_set)) is not None:
        documents.append(restored)
    return documents


def with_record(daemon_set: Document) -> Document:
    """``daemon_set`` with its own spec in an annotation, see :data:`labels.APPLIED_ANNOTATION`."""
    metadata = daemon_set["metadata"]
    record = json.dumps(daemon_set["spec"], sort_keys=True, separators=(",", ":"))
    annotations = {**metadata["annotations"], labels.APPLIED_ANNOTATION: record}
    return {**daemon_set, "metadata": {**metadata, "annotations": annotations}}


def restored_daemon_set(daemon_set: Document, stored: Object | None) -> Document | None:
    """``daemon_set`` with the spec that ``stored`` was applied with; ``None`` if that is not known.

    A version before did not record it. Then the DaemonSet stays as it is until its settings change.
    """
    try:
        spec = json.loads(annotations_of(stored)[labels.APPLIED_ANNOTATION])
    except (KeyError, ValueError, RecursionError):
        return None
    is_for_us = isinstance(spec, dict) and spec.get("selector") == daemon_set["spec"]["selector"]
    return with_record({**daemon_set, "spec": spec}) if is_for_us else None


def _differs(stored: Object | None, document: Document) -> bool:
    """Whether an object is missing, or was made from other settings."""
    key = labels.HASH_ANNOTATION
    return annotations_of(stored).get(key) != annotations_of(document)[key]
