"""Writer of objects that belong to a portfolio: it never writes to what somebody else made under the same name.

An object that is not known is created; if its name is taken, the one that is there is looked at. Whose an object is,
its controller's uid says, and for objects that portfolios share the operator's label. Every write names the uid of the
object that it is meant for, so that another one that takes its place in between is refused by the API server.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from edgefolio_operator import labels
from edgefolio_operator.kube.client import Api, ApiError, collection
from edgefolio_operator.kube.objects import Document, Object, controller_of, well_formed

logger = logging.getLogger(__name__)

PLURALS = {
    "ConfigMap": "configmaps",
    "DaemonSet": "daemonsets",
    "Job": "jobs",
    "ModelEndpoint": "modelendpoints",
    "ModelPortfolio": "modelportfolios",
    "RoleBinding": "rolebindings",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
}
#: A Job's fields cannot be changed, but for those that are patched one by one.
_CREATED_ONCE = frozenset({"Job"})
#: All portfolios of a namespace use the one.
_SHARED = frozenset({"RoleBinding", "ServiceAccount"})
#: Written field by field; the spec of an endpoint is written whole.
_MERGED = frozenset({"DaemonSet", "RoleBinding", "Service", "ServiceAccount"})


class ForeignObjectError(Exception):
    """An object of this name belongs to somebody else; nothing was written."""

    def __init__(self, document: Object, *, owner: str) -> None:
        kind, name = document["kind"], document["metadata"]["name"]
        super().__init__(
            f"{kind} {name} exists and is not this portfolio's ({owner}); it is left alone. "
            f"Rename or delete that {kind}, or make the ModelPortfolio under another name."
        )


class PassingObjectError(Exception):
    """An object of this name is being deleted, or is not whole yet; it is looked at again later."""


class OwnedObjects:
    """Creates, updates and deletes objects whose owner is known."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def write(self, document: Object, *, held: Object | None) -> Object:
        """Bring the stored object to ``document``; ``held`` is the one in the cache, if there is one.

        Raises :class:`ForeignObjectError`, :class:`PassingObjectError` and what the client raises.
        """
        path = path_of(document)
        live = held
        if live is None:
            try:
                live = await self._api.create(path.rpartition("/")[0], document)
                if document["kind"] not in _MERGED:
                    return live
            except ApiError as error:
                if error.status != 409:
                    raise
                live = await self._look(document)
        elif foreign_owner(live, document) is not None:
            # The cache holds not all that shows whose an object is.
            live = await self._look(document)
        if live is None or live["metadata"].get("deletionTimestamp"):
            raise PassingObjectError(f"{document['kind']} {document['metadata']['name']} is being deleted")
        if (owner := foreign_owner(live, document)) is not None:
            if _is_left_over(live, document):
                raise PassingObjectError(f"{owner} made {document['kind']} {document['metadata']['name']}")
            raise ForeignObjectError(document, owner=owner)
        if document["kind"] in _CREATED_ONCE:
            return live
        if document["kind"] in _MERGED:
            await self._as_applied(path, live)
        if not live["metadata"].get("uid"):
            raise PassingObjectError(f"{document['kind']} {document['metadata']['name']} has no uid to be written by")
        metadata = {**document["metadata"], "uid": live["metadata"]["uid"]}
        return await self._api.apply({**document, "metadata": metadata}, plural=PLURALS[document["kind"]])

    async def delete(self, path: str, held: Object | None) -> None:
        """Delete the object at ``path`` if it still is ``held``."""
        if held is None or not held["metadata"].get("uid"):
            return
        try:
            await self._api.delete(path, uid=str(held["metadata"]["uid"]))
        except ApiError as error:
            if error.status != 409:
                raise

    async def _look(self, document: Object) -> Object | None:
        """The stored object of the name of ``document``, read by a patch that changes nothing and is only tried.

        It needs no right but that to patch, which the operator has of every kind. Raises :class:`ForeignObjectError`
        where a policy keeps the operator away from what is not its own.
        """
        try:
            return well_formed(await self._api.merge(path_of(document), {}, dry_run=True))
        except ApiError as error:
            if error.status == 404:
                return None
            if error.status == 403:
                raise ForeignObjectError(document, owner="the operator may not write it") from error
            raise

    async def _as_applied(self, path: str, live: Object) -> Object:
        """``live`` with the fields that its creation set as fields of server-side apply.

        The API server keeps the two apart: a field that was created and is no longer applied would stay for ever. Where
        somebody changes the object at the same time, the next write does it.
        """
        if not any(_is_created_by_us(entry) for entry in live["metadata"].get("managedFields") or ()):
            return live
        try:
            # The cache holds no fields, only that there are some.
            whole = live if _holds_fields(live) else await self._api.merge(path, {}, dry_run=True)
            entries: Sequence[Object] = whole["metadata"].get("managedFields") or ()
            if not any(_is_created_by_us(entry) for entry in entries):
                return live
            version = str(whole["metadata"]["resourceVersion"])
            return await self._api.patch_fields(
                path, [applied(entry) for entry in _without_older(entries)], version=version
            )
        except ApiError as error:
            if error.status != 409:
                raise
            return live


def path_of(document: Object) -> str:
    """Path of the object that ``document`` describes."""
    metadata = document["metadata"]
    return f"{collection(document['apiVersion'], PLURALS[document['kind']], metadata['namespace'])}/{metadata['name']}"


def foreign_owner(live: Object, document: Object) -> str | None:
    """The owner of ``live``, in words, unless it is the controller of ``document``; ``None`` if it is."""
    wanted, found = controller_of(document), controller_of(live)
    if found is not None:
        is_ours = wanted is not None and found.get("uid") == wanted.get("uid")
        return None if is_ours else f"{found.get('kind')} {found.get('name')} owns it"
    # Objects that portfolios share have no owner. From others it was taken, and a label does not show whose it was.
    alike = _is_labelled_alike(live, document)
    shared = wanted is None and document["kind"] in _SHARED
    if (alike and _was_written_by_us(live)) or (shared and (alike or _was_written_by_us(live))):
        return None
    managed = _labels(live).get(labels.MANAGED_BY_LABEL)
    return f"it is managed by {managed}" if managed and managed != labels.MANAGER else "nobody owns it"


def applied(entry: Object) -> Document:
    """An entry of ``managedFields`` as server-side apply would have written it, if it is ours."""
    return {**entry, "operation": "Apply"} if _is_created_by_us(entry) else dict(entry)


def _without_older(entries: Sequence[Object]) -> list[Object]:
    """``entries`` without what we applied before, which a creation that is taken over replaces."""
    return [
        entry
        for entry in entries
        if not (entry.get("manager") == labels.MANAGER and entry.get("operation") == "Apply" and not _part(entry))
    ]


def _holds_fields(live: Object) -> bool:
    return all("fieldsV1" in entry for entry in live["metadata"].get("managedFields") or ())


def _is_created_by_us(entry: Object) -> bool:
    return entry.get("manager") == labels.MANAGER and entry.get("operation") == "Update" and not _part(entry)


def _part(entry: Object) -> str:
    return str(entry.get("subresource") or "")


def _was_written_by_us(live: Object) -> bool:
    entries = live["metadata"].get("managedFields") or ()
    return any(entry.get("manager") == labels.MANAGER for entry in entries)


def _is_labelled_alike(live: Object, document: Object) -> bool:
    """Whether ``live`` carries the labels by which the operator knows its own."""
    keys = (labels.MANAGED_BY_LABEL, labels.PORTFOLIO_LABEL)
    return all(_labels(live).get(key) == _labels(document).get(key) for key in keys)


def _is_left_over(live: Object, document: Object) -> bool:
    """Whether ``live`` belongs to an earlier owner of the same name, with which Kubernetes removes it."""
    wanted, found = controller_of(document), controller_of(live)
    if wanted is None or found is None:
        return False
    return (wanted["kind"], wanted["name"]) == (found.get("kind"), found.get("name"))


def _labels(thing: Object) -> Mapping[str, str]:
    found: Mapping[str, str] = thing["metadata"].get("labels") or {}
    return found
