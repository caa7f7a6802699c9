"""Cache of Kubernetes objects, indexed by namespace and label, that reports each change.

Unread fields are dropped on the way in: on a site with many pods they would be most of the operator's
memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgefolio.contract.order_reason import MESSAGE_ANNOTATION, REASON_ANNOTATION
from edgefolio_operator.kube.objects import Object, ObjectKey, has_name, object_key, part_of, well_formed
from edgefolio_operator.labels import GROUP, MANAGER

#: Deleted objects whose version is remembered: an answer to a write is late by milliseconds, not by so many deletions.
DELETIONS = 4096

_Index = dict[tuple[str, ...], set[ObjectKey]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One cached object before and after a change; ``None`` where it does not exist.

    ``is_listed``: found in a list, at an unknown time after the change.
    """

    before: Object | None
    after: Object | None
    is_listed: bool = False

    @property
    def object(self) -> Object:
        """The object in its last known state."""
        found = self.before if self.after is None else self.after
        assert found is not None
        return found

    @property
    def is_by_user(self) -> bool:
        """Whether the spec, an annotation of ours or the deletion changed, not a status alone."""
        if self.before is None or self.after is None:
            return self.before is not self.after
        return _user_input(self.before) != _user_input(self.after)


class ObjectCache:
    """Objects by namespace and name, reduced by ``transform``; ``on_change`` is called after each change.

    They are :func:`well_formed <edgefolio_operator.kube.objects.well_formed>`; one without a name is left out.
    """

    def __init__(
        self,
        on_change: Callable[[Change], None] = lambda _: None,
        *,
        transform: Callable[[Object], Object] | None = None,
    ) -> None:
        self._objects: dict[ObjectKey, Object] = {}
        self._on_change = on_change
        self._transform = strip_unread_fields if transform is None else transform
        #: The version of each of the last deletions, the oldest first.
        self._deleted: dict[ObjectKey, int] = {}
        self._by_namespace: _Index = {}
        #: Index per requested label, by namespace and value.
        self._by_label: dict[str, _Index] = {}

    def put(self, thing: Object) -> None:
        """Add or replace ``thing``, unless the cached one, or its deletion, is as new.

        The answer to a write may arrive after the watch reported the deletion; nothing would remove it again.
        """
        if not has_name(thing):
            return
        key, version = object_key(thing), _version(thing)
        held = self._objects.get(key)
        if held is None and version and version <= self._deleted.get(key, 0):
            return
        if held is None or _uid(held) != _uid(thing) or _version(held) < version or not version:
            self._set(key, self._read(thing))

    def delete(self, thing: Object) -> None:
        """Remove ``thing``, unless the cached one is newer: made again under the same name."""
        if not has_name(thing):
            return
        key, version = object_key(thing), _version(thing)
        held = self._objects.get(key)
        self._note_deletion(key, version)
        if held is not None and (not version or _version(held) <= version):
            self._set(key, None)

    def replace(self, things: Iterable[Object], *, namespace: str = "", version: int | None = None) -> None:
        """Replace the contents by ``things``, the list of ``namespace`` ("": all); equal objects report no change.

        Held objects that are newer than ``version``, that of the list, stay: they were written while it was read.
        """
        listed = {object_key(thing): thing for thing in things if has_name(thing)}
        held = self._by_namespace.get((namespace,), ()) if namespace else self._objects
        newer = {key for key in held if version is not None and _version(self._objects[key]) > version}
        if version is None:
            self._deleted.clear()
        for key in set(held) - listed.keys() - newer:
            self._note_deletion(key, version or 0)
            self._set(key, None, is_listed=True)
        for key in listed.keys() - newer:
            known = self._objects.get(key)
            if known is None or _uid(known) != _uid(listed[key]) or _version(known) != _version(listed[key]):
                self._set(key, self._read(listed[key]), is_listed=True)

    def get(self, name: str, namespace: str = "") -> Object | None:
        """The object called ``name``."""
        return self._objects.get((namespace, name))

    def select(self, *, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> list[Object]:
        """Objects in ``namespace`` that carry ``labels``, by namespace and name."""
        wanted = dict(labels or {})
        keys: Iterable[ObjectKey] = self._objects
        if namespace is not None and wanted:
            label, value = wanted.popitem()
            keys = self._index(label).get((namespace, value), ())
        elif namespace is not None:
            keys = self._by_namespace.get((namespace,), ())
        return [self._objects[key] for key in sorted(keys) if wanted.items() <= _labels(self._objects[key]).items()]

    def __len__(self) -> int:
        return len(self._objects)

    def _read(self, thing: Object) -> Object:
        """``thing`` as it is kept; reduced first, since most of an object is not read."""
        return well_formed(self._transform(thing))

    def _index(self, label: str) -> _Index:
        if label not in self._by_label:
            index: _Index = {}
            self._by_label[label] = index
            for key, thing in self._objects.items():
                if (value := _labels(thing).get(label)) is not None:
                    index.setdefault((key[0], value), set()).add(key)
        return self._by_label[label]

    def _note_deletion(self, key: ObjectKey, version: int) -> None:
        if version:
            self._deleted.pop(key, None)
            self._deleted[key] = version
            if len(self._deleted) > DELETIONS:
                del self._deleted[next(iter(self._deleted))]

    def _set(self, key: ObjectKey, thing: Object | None, *, is_listed: bool = False) -> None:
        before = self._objects.pop(key, None)
        if before is not None:
            for index, group in self._groups(key, before):
                index[group].discard(key)
                if not index[group]:
                    del index[group]
        if thing is not None:
            self._objects[key] = thing
            for index, group in self._groups(key, thing):
                index.setdefault(group, set()).add(key)
        self._on_change(Change(before=before, after=thing, is_listed=is_listed))

    def _groups(self, key: ObjectKey, thing: Object) -> Iterator[tuple[_Index, tuple[str, ...]]]:
        yield self._by_namespace, (key[0],)
        for label, index in self._by_label.items():
            if (value := _labels(thing).get(label)) is not None:
                yield index, (key[0], value)


def strip_unread_fields(thing: Object) -> Object:
    """``thing`` without the fields that no reconciler reads, whatever it holds."""
    metadata = {key: value for key, value in thing["metadata"].items() if key != "managedFields"}
    kept = {**thing, "metadata": metadata}
    if thing.get("kind") in ("DaemonSet", "RoleBinding", "Service", "ServiceAccount"):
        metadata["managedFields"] = _created_fields(thing)
    if thing.get("kind") == "Pod":
        kept["spec"] = {"nodeName": part_of(thing, "spec", "nodeName")}
        kept["status"] = _only(part_of(thing, "status"), "phase", "conditions", "containerStatuses")
        if first := _entries(part_of(thing, "status", "initContainerStatuses")):
            kept["status"]["initContainerStatuses"] = [_state_only(entry) for entry in first]
    elif thing.get("kind") == "Node":
        kept.pop("spec", None)
        kept["status"] = {
            "conditions": part_of(thing, "status", "conditions") or [],
            "allocatable": _only(part_of(thing, "status", "allocatable"), "cpu", "memory"),
        }
    elif thing.get("kind") == "Service":
        kept.pop("spec", None)
        kept.pop("status", None)
    elif thing.get("kind") == "DaemonSet":
        kept["spec"] = {"template": {"spec": _containers_only(thing)}}
        kept["status"] = _only(part_of(thing, "status"), "desiredNumberScheduled", "observedGeneration")
    elif thing.get("kind") in ("ServiceAccount", "RoleBinding"):
        kept = {key: kept[key] for key in ("apiVersion", "kind", "metadata") if key in kept}
    elif thing.get("kind") == "Job":
        kept["spec"] = {"suspend": part_of(thing, "spec", "suspend") or False}
    return kept


def _only(part: Any, *keys: str) -> dict[str, Any]:
    return {key: part[key] for key in keys if key in part} if isinstance(part, Mapping) else {}


def _entries(part: Any) -> list[Object]:
    return [entry for entry in part if isinstance(entry, Mapping)] if isinstance(part, list | tuple) else []


def _state_only(container_status: Object) -> Object:
    """Name and state of a container; of one that runs or ran only that it did."""
    state = _only(container_status.get("state"), "waiting", "running", "terminated")
    kept = {key: (value if key == "waiting" else {}) for key, value in state.items()}
    return {"name": container_status.get("name"), "state": kept}


def _containers_only(daemon_set: Object) -> Object:
    """Names, images and ports of the containers of a DaemonSet: what an older version built shows there."""
    return {
        part: [
            _only(entry, "name", "image", "ports")
            for entry in _entries(part_of(daemon_set, "spec", "template", "spec", part))
        ]
        for part in ("initContainers", "containers")
    }


def _created_fields(thing: Object) -> list[Object]:
    """Marks of what the operator created and does not yet apply, without the fields themselves."""
    entries = _entries(part_of(thing, "metadata", "managedFields"))
    marks = [{key: entry.get(key, "") for key in ("manager", "operation", "subresource")} for entry in entries]
    return [mark for mark in marks if mark == {"manager": MANAGER, "operation": "Update", "subresource": ""}]


def _uid(thing: Object) -> str:
    return str(thing["metadata"].get("uid", ""))


def _version(thing: Object) -> int:
    version = str(thing["metadata"].get("resourceVersion", ""))
    return int(version) if version.isascii() and version.isdigit() and len(version) < 20 else 0


def _labels(thing: Object) -> Mapping[str, str]:
    found: Mapping[str, str] = thing["metadata"].get("labels") or {}
    return found


def _user_input(thing: Object) -> tuple[object, ...]:
    metadata = thing["metadata"]
    # slo.edgefolio.dev/ as well; annotations of other tools, and the reasons that we write, are no input of ours.
    ours = {
        key: value
        for key, value in (metadata.get("annotations") or {}).items()
        if f"{GROUP}/" in key and key not in (REASON_ANNOTATION, MESSAGE_ANNOTATION)
    }
    return (*(metadata.get(key) for key in ("uid", "generation", "deletionTimestamp")), ours)
