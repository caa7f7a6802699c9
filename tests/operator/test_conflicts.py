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
    RepositoryIndex,
    key_of,
    pods_claimed,
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
    index = RepositoryIndex()
    for entry in portfolios:
        index.update(entry)
    return {key_of(entry): owner for entry in portfolios if (owner := index.owner(key_of(entry))) is not None}


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


def published(entry: dict[str, Any], time: str, *, since: str | None = None) -> dict[str, Any]:
    """``entry`` after a Job of its own published a revision."""
    revision = {"number": 1, "publishedTime": time, "specificationHash": "0123"}
    return {**entry, "status": {"revisions": [revision], **({"publishingSince": since} if since else {})}}


def test_one_that_has_published_nothing_bars_nobody() -> None:
    suspended = {**OLD, "spec": {**OLD["spec"], "job": {"suspend": True}}}
    elsewhere = portfolio("digits", "2026-01-02T00:00:00Z", namespace="other", uri="s3://bucket/portfolios/")
    following = {**OLD, "status": {"revisions": [{"number": 1, "publishedTime": "2026-01-01T00:00:00Z"}]}}
    unreadable = [7, {"specificationHash": "x", "publishedTime": {}}]
    broken = {**OLD, "status": {"revisions": unreadable, "publishingSince": 1}}
    odd = [
        {**OLD, "status": status}
        for status in ("x", {"revisions": 7}, {"revisions": {"a": 1}}, {"publishingSince": {}})
    ]
    for claimant in (OLD, suspended, following, broken, *odd):
        assert repository_owners([elsewhere, claimant]) == {}, claimant


def test_the_first_that_published_has_the_repository_whatever_the_ages_and_namespaces() -> None:
    elsewhere = portfolio("digits", "2026-01-02T00:00:00Z", namespace="other", uri="s3://bucket/portfolios/")
    made = published(elsewhere, "2026-01-03T00:00:00Z")
    for order in itertools.permutations([made, OLD]):
        assert repository_owners(list(order)) == {("models", "zoo"): ("other", "digits")}
    both = [made, published(OLD, "2026-01-03T00:00:01Z")]
    for order in itertools.permutations(both):
        assert repository_owners(list(order)) == {("models", "zoo"): ("other", "digits")}


def test_the_first_stays_the_first_when_its_first_revision_is_no_longer_kept() -> None:
    first = published(YOUNG, "2026-03-01T00:00:00Z", since="2026-01-05T00:00:00Z")
    second = published(OLD, "2026-02-01T00:00:00Z", since="2026-02-01T00:00:00+00:00")
    assert repository_owners([first, second]) == {("models", "zoo"): ("models", "ant")}


def test_an_index_names_those_who_gain_and_lose_a_repository() -> None:
    index = RepositoryIndex()
    index.update(OLD)
    index.update(YOUNG)
    assert index.owner(key_of(OLD)) is None
    assert index.update(published(YOUNG, "2026-01-03T00:00:00Z")) == {key_of(OLD)}
    assert index.owner(key_of(OLD)) == key_of(YOUNG)
    assert index.remove(key_of(YOUNG)) == {key_of(OLD)}
    assert index.owner(key_of(OLD)) is None


@pytest.mark.parametrize(
    "other",
    [
        portfolio("ant", "2026-01-02T00:00:00Z", model="letters"),
        portfolio("ant", "2026-01-02T00:00:00Z", uri="s3://bucket/others"),
        portfolio("ant", "2026-01-02T00:00:00Z", makes=False),
    ],
)
def test_another_model_another_place_or_only_following_is_no_conflict(other: dict[str, Any]) -> None:
    assert repository_owners([published(OLD, "2026-01-01T00:00:00Z"), other]) == {}


def test_claims_of_one_name_in_two_namespaces_are_two_volumes() -> None:
    here = published(portfolio("a", uri="pvc://portfolios/digits"), "2026-01-01T00:00:00Z")
    there = portfolio("a", "2026-01-02T00:00:00Z", namespace="other", uri="pvc://portfolios/digits")
    assert repository_owners([here, there]) == {}
    beside = portfolio("b", "2026-01-02T00:00:00Z", uri="pvc://portfolios/digits")
    assert repository_owners([here, beside]) == {("models", "b"): ("models", "a")}


def test_one_that_is_being_deleted_owns_until_it_is_gone() -> None:
    ending = {**OLD, "metadata": {**OLD["metadata"], "deletionTimestamp": "2026-02-01T00:00:00Z"}}
    made = published(ending, "2026-01-01T00:00:00Z")
    assert repository_owners([made, YOUNG]) == {("models", "ant"): ("models", "zoo")}
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
