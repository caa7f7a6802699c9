"""Cache of objects: the newest version, reduced, found by namespace and label, with each change reported."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings

from edgefolio_operator.cluster_state.adopted_pods import slim_adopted
from edgefolio_operator.kube.cache import DELETIONS, Change, ObjectCache, strip_unread_fields
from edgefolio_operator.kube.objects import has_condition


def thing(name: str, version: int, **fields: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "models", "uid": name, "resourceVersion": str(version), **fields}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def versions(store: ObjectCache) -> dict[str, str]:
    return {entry["metadata"]["name"]: entry["metadata"]["resourceVersion"] for entry in store.select()}


def test_an_older_version_does_not_come_back() -> None:
    store = ObjectCache()
    store.put(thing("a", 7))
    store.put(thing("a", 5))
    assert versions(store) == {"a": "7"}
    store.put(thing("a", 5, uid="another"))
    assert versions(store) == {"a": "5"}


def test_the_late_answer_to_a_write_does_not_bring_back_what_was_deleted() -> None:
    cache = ObjectCache()
    cache.put(thing("a", 7))
    cache.delete(thing("a", 9))
    cache.put(thing("a", 8))
    assert versions(cache) == {}
    cache.put(thing("a", 10, uid="another"))
    assert versions(cache) == {"a": "10"}
    # The list of a server that was restored from a backup begins anew.
    cache.delete(thing("a", 11))
    cache.replace([])
    cache.put(thing("a", 3))
    assert versions(cache) == {"a": "3"}


def test_what_is_remembered_of_deleted_objects_is_bounded() -> None:
    cache = ObjectCache()
    for version in range(1, 3 * DELETIONS):
        cache.put(thing(f"a-{version}", 2 * version))
        cache.delete(thing(f"a-{version}", 2 * version + 1))
    assert len(cache._deleted) <= DELETIONS


def test_a_list_replaces_all_but_what_was_written_while_it_was_read() -> None:
    cache = ObjectCache()
    for entry in (thing("same", 1), thing("changed", 2), thing("gone", 3), thing("newer", 12), thing("made-after", 13)):
        cache.put(entry)
    listed = [thing("same", 1), thing("changed", 8), thing("newer", 4), thing("added", 9)]
    cache.replace(listed, version=10)
    assert versions(cache) == {"same": "1", "changed": "8", "newer": "12", "made-after": "13", "added": "9"}
    # Of a server that was restored from a backup, everything counts as it is listed.
    cache.replace(listed)
    assert versions(cache) == {"same": "1", "changed": "8", "newer": "4", "added": "9"}


def test_a_list_of_one_namespace_leaves_the_others() -> None:
    cache = ObjectCache()
    cache.put(thing("a", 1, namespace="one"))
    cache.put(thing("b", 2, namespace="two"))
    cache.replace([], namespace="one")
    assert versions(cache) == {"b": "2"}


def test_what_users_write_is_told_from_what_is_reported() -> None:
    changes: list[Change] = []
    cache = ObjectCache(changes.append)

    def is_by_user(version: int, **fields: Any) -> bool:
        changes.clear()
        cache.put(thing("a", version, **fields))
        (change,) = changes
        return change.is_by_user

    assert is_by_user(1, generation=1)
    assert not is_by_user(2, generation=1)  # a status was written
    assert is_by_user(3, generation=2)
    assert is_by_user(4, generation=2, annotations={"edgefolio.dev/make-requested-at": "now"})
    assert not is_by_user(5, generation=2, annotations={"edgefolio.dev/make-requested-at": "now", "helm.sh/x": "1"})
    assert is_by_user(6, generation=2, annotations={"slo.edgefolio.dev/latency-p95-ms": "5"})
    assert is_by_user(7, generation=2)
    assert is_by_user(8, generation=2, deletionTimestamp="2026-01-01T00:00:00Z")
    assert not is_by_user(9, generation=2, deletionTimestamp="2026-01-01T00:00:00Z")


def test_each_change_is_reported_once() -> None:
    changes: list[Change] = []
    cache = ObjectCache(changes.append)
    cache.put(thing("a", 1))
    cache.put(thing("a", 1))
    cache.put(thing("b", 2))
    cache.replace([thing("b", 2), thing("c", 3)])
    cache.delete(thing("c", 3))
    cache.delete(thing("c", 3))
    told = [
        (change.object["metadata"]["name"], change.before is not None, change.after is not None) for change in changes
    ]
    assert told == [
        ("a", False, True),
        ("b", False, True),
        ("a", True, False),
        ("c", False, True),
        ("c", True, False),
    ]


def test_a_late_deletion_leaves_what_was_made_again() -> None:
    cache = ObjectCache()
    cache.put(thing("a", 1))
    cache.put(thing("a", 5, uid="again"))
    cache.delete(thing("a", 4))
    assert versions(cache) == {"a": "5"}
    cache.delete({"metadata": {"name": "a", "namespace": "models"}})
    assert versions(cache) == {}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "delete", "replace"]),
            st.sampled_from(["a", "b", "c"]),
            st.sampled_from(["n1", "n2"]),
            st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(["1", "2"])),
        ),
        max_size=12,
    )
)
def test_the_indexes_find_what_a_scan_finds(steps: list[tuple[str, str, str, dict[str, str]]]) -> None:
    cache = ObjectCache()
    for version, (step, name, namespace, labels) in enumerate(steps, start=1):
        entry = thing(name, version, namespace=namespace, labels=labels)
        if step == "replace":
            cache.replace([entry])
        else:
            getattr(cache, step)(entry)
        everything = cache.select()
        assert len(cache) == len(everything)
        for where in ("n1", "n2"):
            inside = [found for found in everything if found["metadata"]["namespace"] == where]
            assert cache.select(namespace=where) == inside
            for wanted in ({"x": "1"}, {"x": "1", "y": "2"}):
                carrying = [found for found in inside if wanted.items() <= found["metadata"]["labels"].items()]
                assert cache.select(namespace=where, labels=wanted) == carrying


def test_of_a_node_conditions_and_what_it_has_are_kept() -> None:
    node = {
        "kind": "Node",
        "metadata": {"name": "edge-1", "managedFields": [1]},
        "spec": {"podCIDR": "10.0.0.0/24"},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "images": [{"names": ["x"]}] * 50,
        },
    }
    assert strip_unread_fields(node) == {
        "kind": "Node",
        "metadata": {"name": "edge-1"},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "allocatable": {"cpu": "4", "memory": "8Gi"},
        },
    }
    assert strip_unread_fields({"kind": "Node", "metadata": {"name": "x"}})["status"] == {
        "conditions": [],
        "allocatable": {},
    }


def test_objects_are_reduced_by_the_transform() -> None:
    store = ObjectCache(transform=lambda found: {"metadata": found["metadata"]})
    store.put(thing("a", 1))
    assert store.get("a", "models") == {"metadata": thing("a", 1)["metadata"]}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "namespace", "labels", "conditions", "nodeName", "type", "status", "state", "a"]),
            inner,
        )
    ),
    max_leaves=12,
)
KINDS = st.sampled_from(["Pod", "Node", "Job", "ModelPortfolio", "ModelEndpoint", "DaemonSet", "Service", "Namespace"])


@given(kind=KINDS | ANYTHING, metadata=ANYTHING, spec=ANYTHING, status=ANYTHING, adopted=st.booleans())
def test_whatever_an_object_holds_it_is_cached_in_the_form_that_is_read(
    kind: Any, metadata: Any, spec: Any, status: Any, adopted: bool
) -> None:
    changes: list[Change] = []
    cache = ObjectCache(changes.append, transform=slim_adopted if adopted and kind == "Pod" else None)
    thing: Any = {"kind": kind, "metadata": metadata, "spec": spec, "status": status}
    named = {**thing, "metadata": {**(metadata if isinstance(metadata, dict) else {}), "name": "x", "namespace": "n"}}
    cache.replace([thing, named])
    cache.put(named)
    cache.put(thing)
    assert cache.get("x", "n") is not None
    for found in cache.select(labels={}):
        assert all(isinstance(value, str) for value in (found["metadata"].get("labels") or {}).values())
        assert isinstance(found.get("status", {}), dict)
        assert kind not in ("Pod", "Node") or has_condition(found, "Ready") in (True, False)
    assert cache.select(namespace="n", labels={"a": "b"}) == [] or isinstance(named["metadata"]["labels"], dict)
    assert {change.is_by_user for change in changes} <= {True, False}
    cache.delete(named)
    assert cache.get("x", "n") is None
