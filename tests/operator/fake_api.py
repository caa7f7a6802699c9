"""An API server in memory: what the operator's client asks of it, watches included, and writes that hang on request."""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import AsyncGenerator, Callable
from typing import Any

from edgefolio.kubernetes.access import Access, Credentials
from edgefolio_operator.kube.client import Api, ApiError

Object = dict[str, Any]
Place = tuple[str, str, str, str]


class FakeApi(Api):
    """The operator's own client, with a dictionary in the place of the connection.

    ``hangs`` says which writes never end, ``delays`` how long a list with a selector takes.
    """

    def __init__(self) -> None:
        super().__init__(Access(lambda: Credentials(server="", namespace="system", tls=None, token=None)))
        self.objects: dict[Place, Object] = {}
        self.hangs: Callable[[str], bool] = lambda _path: False
        self.delays: Callable[[str], float] = lambda _selector: 0.0
        self.written: list[str] = []
        self._version = 0
        self._watches: list[tuple[Place, str, asyncio.Queue[tuple[str, Object]]]] = []

    @property
    def silent_seconds(self) -> float:
        return 0.0

    def put(self, path: str, thing: Object) -> Object:
        """Store ``thing`` at ``path``, as somebody else would."""
        place = _place(path)
        before = self.objects.get(place)
        self._version += 1
        metadata = {"generation": 1, "uid": path, "creationTimestamp": "2027-01-01T00:00:00Z", **thing["metadata"]}
        if before is not None and before.get("spec") != thing.get("spec"):
            metadata["generation"] = before["metadata"]["generation"] + 1
        metadata |= {"resourceVersion": str(self._version), "name": place[3]}
        metadata |= {"namespace": place[2]} if place[2] else {}
        self.objects[place] = {**thing, "metadata": metadata}
        self._tell("ADDED" if before is None else "MODIFIED", place)
        return copy.deepcopy(self.objects[place])

    def remove(self, path: str) -> None:
        place = _place(path)
        self._version += 1
        self.objects[place]["metadata"]["resourceVersion"] = str(self._version)
        self._tell("DELETED", place)
        del self.objects[place]

    def find(self, plural: str, name: str) -> Object:
        """The object of this name."""
        return next(thing for place, thing in self.objects.items() if (place[1], place[3]) == (plural, name))

    async def watch(self, path: str, *, version: str, selector: str = "") -> AsyncGenerator[tuple[str, Object], None]:
        changes: asyncio.Queue[tuple[str, Object]] = asyncio.Queue()
        self._watches.append((_place(path), selector, changes))
        while True:
            yield await changes.get()

    async def _request(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        content_type: str = "application/json",
        params: dict[str, str] | None = None,
    ) -> Object:
        await asyncio.sleep(0)
        if path == "/version":
            return {"major": "1", "minor": "33"}
        place = _place(path)
        if method == "GET":
            selector = (params or {}).get("labelSelector", "")
            await asyncio.sleep(self.delays(selector))
            return self._read(place, selector)
        if self.hangs(path):
            await asyncio.Event().wait()
        if method == "PATCH" and (params or {}).get("dryRun"):
            return self._read(place, "")
        if (params or {}).get("dryRun"):
            return {}
        self.written.append(f"{method} {path}")
        if method == "DELETE":
            wanted = ((body or {}).get("preconditions") or {}).get("uid")
            if place not in self.objects:
                raise ApiError(404, "NotFound", path)
            if wanted and self.objects[place]["metadata"]["uid"] != wanted:
                raise ApiError(409, "Conflict", "the UID in the precondition does not match")
            self.remove(path)
            return {}
        assert body is not None
        if method == "POST":
            created = f"{path}/{body['metadata']['name']}"
            if _place(created) in self.objects:
                raise ApiError(409, "AlreadyExists", created)
            return self.put(created, body)
        if isinstance(body, list):
            return self._read(place, "")
        before = copy.deepcopy(self.objects.get(_place(path.removesuffix("/status")), {"metadata": {}}))
        uid = body.get("metadata", {}).get("uid")
        if uid and before["metadata"].get("uid") != uid:
            raise ApiError(409, "Conflict", "the UID in the precondition does not match")
        if method == "PUT":
            return self.put(path, body)
        if path.endswith("/status"):
            return self.put(path.removesuffix("/status"), {**before, "status": body["status"]})
        return self.put(path, {**before, **body, "metadata": {**before["metadata"], **body.get("metadata", {})}})

    def _read(self, place: Place, selector: str) -> Object:
        if place[3]:
            if place not in self.objects:
                raise ApiError(404, "NotFound", "/".join(place))
            return copy.deepcopy(self.objects[place])
        items = [copy.deepcopy(thing) for at, thing in self.objects.items() if _is_in(at, thing, place, selector)]
        kinds = {"modelportfolios": "ModelPortfolio", "modelendpoints": "ModelEndpoint", "nodes": "Node"}
        kinds |= {"daemonsets": "DaemonSet", "serviceaccounts": "ServiceAccount", "rolebindings": "RoleBinding"}
        kind = kinds.get(place[1], place[1].title().removesuffix("s"))
        version = "/".join(place[0].split("/")[2:])
        return {
            "apiVersion": version,
            "kind": f"{kind}List",
            "metadata": {"resourceVersion": str(self._version)},
            "items": items,
        }

    def _tell(self, kind: str, place: Place) -> None:
        thing = copy.deepcopy(self.objects[place])
        for where, selector, changes in self._watches:
            if _is_in(place, thing, where, selector):
                changes.put_nowait((kind, copy.deepcopy(thing)))


def _place(path: str) -> Place:
    """Group and version, plural, namespace and name of a path."""
    parts = path.strip("/").split("/")
    head = 2 if parts[0] == "api" else 3
    root, rest = "/" + "/".join(parts[:head]), parts[head:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    return root, rest[0], namespace, rest[1] if len(rest) > 1 else ""


def _is_in(at: Place, thing: Object, where: Place, selector: str) -> bool:
    same = at[:2] == where[:2] and where[2] in ("", at[2])
    carried = thing["metadata"].get("labels") or {}
    # Commas between parentheses separate values.
    for term in filter(None, re.split(r",(?![^(]*\))", selector)):
        key, _, values = term.partition(" in ")
        name, equals, value = key.partition("=")
        if values:
            same = same and carried.get(name) in values.strip("()").split(",")
        else:
            same = same and name in carried and (not equals or carried[name] == value)
    return same
