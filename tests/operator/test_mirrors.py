"""What a mirror holds: the newest, without what nobody reads, and what a watch missed made up for."""

from __future__ import annotations

from typing import Any

from edgefolio_operator.kube.informer import Store, slim


def thing(name: str, version: int, **fields: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "models", "uid": name, "resourceVersion": str(version), **fields}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def versions(store: Store) -> dict[str, str]:
    return {entry["metadata"]["name"]: entry["metadata"]["resourceVersion"] for entry in store.all()}


def test_an_older_version_does_not_come_back() -> None:
    store = Store()
    store.put(thing("a", 7))
    store.put(thing("a", 5))
    assert versions(store) == {"a": "7"}
    store.put(thing("a", 5, uid="another"))
    assert versions(store) == {"a": "5"}


def test_a_list_makes_up_for_what_was_missed() -> None:
    changes: list[None] = []
    store = Store(lambda: changes.append(None))
    for entry in (thing("same", 1), thing("changed", 2), thing("gone", 3), thing("newer", 12), thing("made-after", 13)):
        store.put(entry)
    changes.clear()
    missed = store.merge(
        [thing("same", 1), thing("changed", 8), thing("newer", 4), thing("added", 9)],
        version="10",
    )
    # "newer" and "made-after" were seen after the list was made: they stand.
    assert versions(store) == {"same": "1", "changed": "8", "newer": "12", "made-after": "13", "added": "9"}
    assert missed == 3
    assert len(changes) == 3
    assert store.merge([thing(name, int(version)) for name, version in versions(store).items()], version="20") == 0


def test_what_people_write_is_told_from_what_is_reported() -> None:
    asked: list[None] = []
    store = Store(asked=lambda: asked.append(None))

    def asked_by(**fields: Any) -> int:
        asked.clear()
        store.put(thing("a", len(store.all()), **fields))
        return len(asked)

    assert asked_by(generation=1) == 1  # new
    assert asked_by(generation=1) == 0  # a status was written
    assert asked_by(generation=2) == 1
    assert asked_by(generation=2, annotations={"edgefolio.dev/make-requested-at": "now"}) == 1
    assert asked_by(generation=2) == 1
    assert asked_by(generation=2, deletionTimestamp="2026-01-01T00:00:00Z") == 1
    assert asked_by(generation=2, deletionTimestamp="2026-01-01T00:00:00Z") == 0


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
    assert slim(node) == {
        "kind": "Node",
        "metadata": {"name": "edge-1"},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "allocatable": {"cpu": "4", "memory": "8Gi"},
        },
    }
    assert slim({"kind": "Node", "metadata": {"name": "x"}})["status"] == {"conditions": [], "allocatable": {}}


def test_a_store_keeps_what_it_is_told_to_keep() -> None:
    store = Store(keep=lambda found: {"metadata": found["metadata"]})
    store.put(thing("a", 1))
    assert store.get("a", "models") == {"metadata": thing("a", 1)["metadata"]}
