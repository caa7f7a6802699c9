"""What portfolios share is found by index as it is by looking through everything."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edgefolio_operator.endpoints.memory_reservations import Promise, ReservationLedger
from edgefolio_operator.reconcilers.shared_resources import SharedResources

A, B, C = ("models", "a"), ("models", "b"), ("models", "c")


def promise(key: tuple[str, str], node: str, mebibytes: int = 100) -> Promise:
    endpoint = ("models", f"{key[1]}-{node}")
    return Promise(endpoint=endpoint, node=node, revision=1, variant="dense", peak_bytes=mebibytes * 2**20, since=0.0)


def with_pod(key: tuple[str, str], node: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    portfolio = {"metadata": {"namespace": key[0], "name": key[1], "creationTimestamp": "x"}, "spec": {}}
    pod = {"metadata": {"namespace": key[0], "name": f"{key[1]}-{node}"}, "spec": {"nodeName": node}}
    return portfolio, [pod]


def test_a_promise_of_one_portfolio_is_seen_by_the_others_on_the_node_and_by_no_other() -> None:
    shared = SharedResources()
    for key, node in ((A, "one"), (B, "one"), (C, "two")):
        shared.claim(*with_pod(key, node))

    def reserved(key: tuple[str, str], node: str) -> int:
        return shared.reservations(key).reserved_bytes(node, but_for=(key[0], f"{key[1]}-{node}"), seen_at=0.0, now=1.0)

    assert shared.promise(A, [promise(A, "one")]) == {B}
    assert shared.promise(A, [promise(A, "one")]) == set(), "nothing changed"
    assert (reserved(A, "one"), reserved(B, "one"), reserved(C, "two")) == (0, 100 * 2**20, 0)
    assert shared.on_node("one") == {A, B}
    assert shared.remove(A) == {B}
    assert reserved(B, "one") == 0
    assert shared.on_node("one") == {B}


promises = st.lists(st.tuples(st.sampled_from(["one", "two"]), st.integers(1, 3)), max_size=3)


@given(records=st.lists(st.tuples(st.sampled_from([A, B, C]), promises), max_size=8))
def test_the_ledger_holds_what_each_portfolio_recorded_last(records: list[tuple[tuple[str, str], Any]]) -> None:
    ledger = ReservationLedger()
    last: dict[tuple[str, str], tuple[Promise, ...]] = {}
    for key, found in records:
        made = tuple(promise(key, node, mebibytes) for node, mebibytes in found)
        changed = ledger.record(key, made)
        before = last.get(key, ())
        assert changed == {
            node
            for node in ("one", "two")
            if [each for each in before if each.node == node] != [each for each in made if each.node == node]
        }
        last[key] = made
    for key in (A, B, C):
        found = ledger.reservations(key, nodes=["one"]).promises
        wanted = [each for owner, made in last.items() for each in made if owner == key or each.node == "one"]
        assert sorted(str(each) for kept in found.values() for each in kept) == sorted(map(str, wanted))
