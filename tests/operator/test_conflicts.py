"""Who has a pod, and who may make into a repository, when two portfolios want the same."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefolio_operator.ownership import (
    ClaimIndex,
    PortfolioKey,
    key_of,
    pods_claimed,
    repositories_claimed,
    seniority,
)


def portfolio(
    name: str,
    created: str = "2026-01-01T00:00:00Z",
    *,
    namespace: str = "models",
    uri: str = "s3://bucket/portfolios",
    model: str = "digits",
    makes: bool = True,
) -> dict[str, Any]:
    source = {"source": {"architecture": {"library": "edgefolio", "name": "cnn"}}} if makes else {}
    return {
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created, "uid": f"{namespace}/{name}"},
        "spec": {**source, "repository": {"uri": uri}, "serving": {"modelName": model}},
    }


def pods(*names: str, namespace: str = "models") -> list[dict[str, Any]]:
    return [{"metadata": {"name": name, "namespace": namespace}} for name in names]


def lost_pods(claims: Any) -> dict[PortfolioKey, dict[str, PortfolioKey]]:
    """Per portfolio the pods that an older one has, when all of ``claims`` were indexed one by one."""
    index: ClaimIndex[tuple[str, str]] = ClaimIndex()
    for entry, found in claims:
        index.update(entry, pods_claimed(found))
    lost = {key_of(entry): {pod: owner for (_, pod), owner in index.lost(key_of(entry)).items()} for entry, _ in claims}
    return {key: found for key, found in lost.items() if found}


def repository_owners(portfolios: list[dict[str, Any]]) -> dict[PortfolioKey, PortfolioKey]:
    index: ClaimIndex[tuple[str, ...]] = ClaimIndex()
    for entry in portfolios:
        index.update(entry, repositories_claimed(entry))
    return {key_of(entry): owner for entry in portfolios for owner in index.lost(key_of(entry)).values()}


OLD = portfolio("zoo", "2026-01-01T00:00:00Z")
YOUNG = portfolio("ant", "2026-01-01T00:00:01Z")


def test_the_older_has_the_pod_whatever_comes_first() -> None:
    claims = [(YOUNG, pods("a", "b")), (OLD, pods("b", "c"))]
    for order in itertools.permutations(claims):
        assert lost_pods(order) == {("models", "ant"): {"b": ("models", "zoo")}}


def test_of_two_of_one_second_the_first_by_name_has_it() -> None:
    twin = portfolio("ape")
    assert lost_pods([(OLD, pods("a")), (twin, pods("a"))]) == {("models", "zoo"): {"a": ("models", "ape")}}


def test_pods_of_one_name_in_two_namespaces_are_two() -> None:
    elsewhere = portfolio("zoo", namespace="other")
    assert lost_pods([(OLD, pods("a")), (elsewhere, pods("a", namespace="other"))]) == {}


def test_an_older_portfolio_makes_into_a_repository_also_from_another_namespace() -> None:
    elsewhere = portfolio("digits", "2026-01-02T00:00:00Z", namespace="other", uri="s3://bucket/portfolios/")
    assert repository_owners([elsewhere, OLD]) == {("other", "digits"): ("models", "zoo")}


@pytest.mark.parametrize(
    "other",
    [
        portfolio("ant", "2026-01-02T00:00:00Z", model="letters"),
        portfolio("ant", "2026-01-02T00:00:00Z", uri="s3://bucket/others"),
        portfolio("ant", "2026-01-02T00:00:00Z", makes=False),
    ],
)
def test_another_model_another_place_or_only_following_is_no_conflict(other: dict[str, Any]) -> None:
    assert repository_owners([OLD, other]) == {}


def test_claims_of_one_name_in_two_namespaces_are_two_volumes() -> None:
    here = portfolio("a", uri="pvc://portfolios/digits")
    there = portfolio("a", "2026-01-02T00:00:00Z", namespace="other", uri="pvc://portfolios/digits")
    assert repository_owners([here, there]) == {}
    beside = portfolio("b", "2026-01-02T00:00:00Z", uri="pvc://portfolios/digits")
    assert repository_owners([here, beside]) == {("models", "b"): ("models", "a")}


def test_one_that_is_being_deleted_owns_until_it_is_gone() -> None:
    ending = {**OLD, "metadata": {**OLD["metadata"], "deletionTimestamp": "2026-02-01T00:00:00Z"}}
    assert repository_owners([ending, YOUNG]) == {("models", "ant"): ("models", "zoo")}
    assert lost_pods([(ending, pods("a")), (YOUNG, pods("a"))]) == {("models", "ant"): {"a": ("models", "zoo")}}


@pytest.mark.parametrize(
    "spec", [None, {}, {"source": {}}, {"source": {"x": 1}}, {"source": {"x": 1}, "repository": 5}]
)
def test_a_spec_that_cannot_be_read_owns_nothing(spec: Any) -> None:
    assert repository_owners([{**YOUNG, "spec": spec}, OLD]) == {}


portfolios = st.lists(
    st.builds(
        portfolio,
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]),
        namespace=st.sampled_from(["x", "y"]),
    ),
    max_size=5,
    unique_by=lambda entry: str(key_of(entry)),
)


@given(entries=portfolios, data=st.data())
def test_every_pod_has_one_owner_and_it_is_the_oldest_claimant(
    entries: list[dict[str, Any]], data: st.DataObject
) -> None:
    names = st.lists(st.sampled_from(["p", "q", "r"]), unique=True)
    claims = [(entry, pods(*data.draw(names), namespace=key_of(entry)[0])) for entry in entries]
    lost = lost_pods(claims)
    selected = {
        str(key_of(entry)): {(pod["metadata"]["namespace"], pod["metadata"]["name"]) for pod in found}
        for entry, found in claims
    }
    for namespace, pod in set().union(*selected.values()):
        claimants = [entry for entry in entries if (namespace, pod) in selected[str(key_of(entry))]]
        oldest = min(claimants, key=seniority)
        for entry in claimants:
            owner = lost.get(key_of(entry), {}).get(pod)
            assert owner == (None if entry is oldest else key_of(oldest))


def test_an_index_that_is_updated_says_what_a_new_one_says_and_names_whom_it_concerns() -> None:
    index: ClaimIndex[tuple[str, str]] = ClaimIndex()
    young, old = key_of(YOUNG), key_of(OLD)
    assert index.update(YOUNG, pods_claimed(pods("a", "b"))) == set()
    assert index.update(OLD, pods_claimed(pods("b", "c"))) == {young}
    assert index.lost(young) == {("models", "b"): old}
    assert index.update(OLD, pods_claimed(pods("b", "c"))) == set(), "nothing changed"
    assert index.update(OLD, pods_claimed(pods("c"))) == {young}
    assert index.lost(young) == {}
    assert index.owner(("models", "b")) == young
    index.update(OLD, pods_claimed(pods("a")))
    assert index.remove(old) == {young}
    assert (index.lost(young), index.owner(("models", "c"))) == ({}, None)
