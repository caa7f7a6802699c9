"""A tenant who may make ModelPortfolios, and nothing else, gets the operator to touch nothing of others.

The operator in pieces, in ``tests/operator``: ``test_owners.py`` (labels), ``test_taken_names.py`` (names),
``test_conflicts.py`` (repositories), ``test_job_settings.py`` (Jobs); on a real API server: ``test_drift.py``.
"""

from __future__ import annotations

import asyncio
import copy
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "operator"))

from fake_api import FakeApi
from reconciled_site import Site

from edgefolio_operator.kube.client import ApiError
from edgefolio_operator.kube.owned_objects import ForeignObjectError, OwnedObjects, PassingObjectError
from edgefolio_operator.ownership import RepositoryIndex, key_of

KUBERNETES = "/api/v1/namespaces/default/services/kubernetes"


def service(name: str, namespace: str, uid: str = "evil") -> dict[str, Any]:
    """The Service that the operator would write for a portfolio."""
    site = Site(nodes=1)
    site.portfolio["metadata"] |= {"name": name, "namespace": namespace, "uid": uid}
    document = next(entry for entry in site.cycle().apply if entry["kind"] == "Service")
    document["metadata"]["namespace"] = namespace
    return document


def write(api: FakeApi, document: dict[str, Any], held: dict[str, Any] | None = None) -> Any:
    return asyncio.run(OwnedObjects(api).write(document, held=held))


def test_the_api_server_s_own_service_is_not_taken_over() -> None:
    api = FakeApi()
    before = api.put(
        KUBERNETES, {"kind": "Service", "metadata": {"labels": {"component": "apiserver"}}, "spec": {"x": 1}}
    )
    with pytest.raises(ForeignObjectError, match="Service kubernetes exists and is not this portfolio's"):
        write(api, service("kubernetes", "default"))
    assert api.objects[("/api/v1", "services", "default", "kubernetes")] == before
    assert api.written == ["POST /api/v1/namespaces/default/services"], "refused, since the name is taken"


def test_what_is_made_between_the_look_and_the_write_is_not_written_to() -> None:
    api = FakeApi()
    document = service("payments", "shop")
    path = "/api/v1/namespaces/shop/services/payments"
    mine = copy.deepcopy(write(api, document))
    api.remove(path)
    api.put(path, {"kind": "Service", "metadata": {"uid": "theirs"}, "spec": {"selector": {"app": "payments"}}})
    with pytest.raises(ApiError) as refused:
        write(api, document, held=mine)
    assert refused.value.status == 409
    assert api.find("services", "payments")["spec"] == {"selector": {"app": "payments"}}
    asyncio.run(OwnedObjects(api).delete(path, mine))
    assert api.find("services", "payments")["metadata"]["uid"] == "theirs", "nor deleted"


def test_an_object_that_is_on_its_way_out_is_waited_for() -> None:
    api = FakeApi()
    path = "/api/v1/namespaces/shop/services/payments"
    api.put(path, {"kind": "Service", "metadata": {"deletionTimestamp": "2027-01-01T00:00:00Z"}})
    with pytest.raises(PassingObjectError):
        write(api, service("payments", "shop"))


def test_a_policy_that_keeps_the_operator_away_is_a_conflict_too() -> None:
    class Policed(FakeApi):
        async def _request(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
            if method == "PATCH":
                raise ApiError(403, "Forbidden", "denied by a policy")
            return await super()._request(method, path, body, **options)

    api = Policed()
    api.put("/api/v1/namespaces/shop/services/payments", {"kind": "Service", "metadata": {}})
    with pytest.raises(ForeignObjectError, match="the operator may not write it"):
        write(api, service("payments", "shop"))


def test_a_squatter_bars_nobody_from_a_repository_and_learns_no_names() -> None:
    def portfolio(namespace: str, name: str, created: str, **more: Any) -> dict[str, Any]:
        metadata = {"namespace": namespace, "name": name, "creationTimestamp": created, "uid": namespace}
        spec = {"source": {"x": 1}, "repository": {"uri": "s3://corp/models"}, "serving": {"modelName": "fraud"}}
        return {"metadata": metadata, "spec": {**spec, **more}}

    victim = portfolio("prod", "fraud", "2026-02-01T00:00:00Z")
    squatter = portfolio("attacker", "squat", "2026-01-01T00:00:00Z", job={"suspend": True})
    index = RepositoryIndex()
    for entry in (squatter, victim):
        index.update(entry)
    assert (index.owner(key_of(victim)), index.owner(key_of(squatter))) == (None, None)
    made = {"number": 1, "publishedTime": "2026-03-01T00:00:00Z", "specificationHash": "0123"}
    index.update({**victim, "status": {"revisions": [made]}})
    assert index.owner(key_of(squatter)) == key_of(victim)
    site = Site()
    site.repository_owner = key_of(victim)
    site.cycle()
    assert site.condition("Stalled") == ("True", "RepositoryOwned")
    assert "prod" not in str(site.portfolio["status"])
    assert "fraud" not in str(site.portfolio["status"])
