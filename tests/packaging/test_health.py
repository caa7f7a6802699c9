"""GitOps tools read the conditions as meant: Argo CD by our scripts in a real Lua, Flux by kstatus."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as some
from kstatus import compute
from lupa import lua51
from rendering import MANIFESTS

from edgefolio.specification.endpoint import EndpointSpecification, EndpointStatus
from edgefolio.specification.portfolio_status import EndpointCounts, PortfolioStatus, RolloutStatus
from edgefolio_operator.status.conditions import Facts, conditions_of

SCRIPTS = MANIFESTS / "gitops" / "argocd" / "resource_customizations" / "edgefolio.dev"
KINDS = ("ModelPortfolio", "ModelEndpoint")
NOW = 1_767_225_600.0


def health(thing: dict[str, Any]) -> dict[str, str]:
    """What the script of its kind says of ``thing``. Lua 5.1 with its base library alone, as in Argo CD."""
    lua = lua51.LuaRuntime(register_eval=False)
    for library in ("io", "os", "package", "require", "debug", "dofile", "loadfile"):
        lua.execute(f"{library} = nil")
    lua.globals()["obj"] = lua.table_from(thing, recursive=True)
    found = lua.execute((SCRIPTS / thing["kind"] / "health.lua").read_text())
    return {str(key): str(value) for key, value in cast(Any, found).items()}


def cases() -> list[Any]:
    return [
        pytest.param(
            SCRIPTS / kind / case["inputPath"], case["healthStatus"], id=f"{kind}: {Path(case['inputPath']).stem}"
        )
        for kind in KINDS
        for case in yaml.safe_load((SCRIPTS / kind / "health_test.yaml").read_text())["tests"]
    ]


@pytest.mark.parametrize(("path", "expected"), cases())
def test_health(path: Path, expected: dict[str, str]) -> None:
    assert health(yaml.safe_load(path.read_text())) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_every_object_is_used_and_is_one_of_ours(kind: str) -> None:
    listed = {case["inputPath"] for case in yaml.safe_load((SCRIPTS / kind / "health_test.yaml").read_text())["tests"]}
    assert listed == {f"testdata/{path.name}" for path in (SCRIPTS / kind / "testdata").iterdir()}
    for path in (SCRIPTS / kind / "testdata").iterdir():
        thing = yaml.safe_load(path.read_text())
        if kind == "ModelPortfolio":
            PortfolioStatus.model_validate(thing.get("status") or {})
        else:
            EndpointSpecification.model_validate(thing["spec"])
            EndpointStatus.model_validate(thing.get("status") or {})


def test_all_healths_occur() -> None:
    seen = {
        case["healthStatus"]["status"]
        for case in yaml.safe_load((SCRIPTS / "ModelPortfolio" / "health_test.yaml").read_text())["tests"]
    }
    assert seen == {"Healthy", "Progressing", "Degraded", "Suspended"}


@some.composite
def counts(draw: Any, *, serving: bool = False) -> EndpointCounts:
    total = draw(some.integers(1 if serving else 0, 20))
    available = total if serving else draw(some.integers(0, total))
    met = draw(some.integers(0, available))
    return EndpointCounts(summary=f"{met}/{total}", total=total, available=available, meeting_objectives=met)


ROLLOUTS = some.one_of(
    some.none(),
    some.sampled_from(["Progressing", "Completed", "Paused", "RolledBack"]).map(
        lambda phase: RolloutStatus(revision=2, from_revision=1, phase=phase, message="why")
    ),
)
TERMINAL = some.one_of(some.none(), some.just(("BadInput", "spec.seed: it is wrong. Mend it.")))
FACTS = some.builds(
    Facts,
    generation=some.just(3),
    making=some.booleans(),
    revision=some.sampled_from([0, 2]),
    waits_for_others=some.booleans(),
    terminal=TERMINAL,
    rollout=ROLLOUTS,
    counts=some.one_of(some.none(), counts()),
    endpoints_settled=some.booleans(),
    objectives_unknown=some.just(0),
    issues=some.sampled_from([(), ("an annotation is ignored",)]),
)


def portfolio(facts: Facts, *, outcome: str | None = None) -> dict[str, Any]:
    """The resource as the operator writes it."""
    status = PortfolioStatus(
        observed_generation=facts.generation,
        conditions=conditions_of(facts, before=(), now=NOW),
        current_revision=facts.revision,
        rollout=facts.rollout,
        endpoints=facts.counts,
    ).model_dump(mode="json", by_alias=True, exclude_none=True)
    if outcome is not None:
        status["job"] = {"name": "digits-make", "specificationHash": "0", "outcome": outcome}
    metadata = {"name": "digits", "generation": facts.generation}
    return {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "metadata": metadata, "status": status}


@given(FACTS)
def test_kstatus_fails_on_terminal_errors_and_on_nothing_else(facts: Facts) -> None:
    found = compute(portfolio(facts))
    if facts.terminal is None:
        assert found in ("InProgress", "Current")
    elif not facts.revision:
        assert found == "Failed"
    else:
        # Endpoints may start or go to another revision meanwhile; once they are settled it shows.
        settled = facts.endpoints_settled and (facts.rollout is None or facts.rollout.phase != "Progressing")
        assert found == ("Failed" if settled else "InProgress")


@given(some.data())
def test_a_switch_changes_nothing_for_flux(data: some.DataObject) -> None:
    """Whatever serves where, and whoever misses objectives: what serves stays Current, also while a remake is on."""
    facts = Facts(
        generation=3,
        revision=2,
        making=data.draw(some.booleans()),
        counts=data.draw(counts(serving=True)),
        rollout=data.draw(some.sampled_from([None, RolloutStatus(revision=2, phase="Completed")])),
        issues=data.draw(some.sampled_from([(), ("an annotation is ignored",)])),
    )
    assert compute(portfolio(facts)) == "Current"
    assert health(portfolio(facts))["status"] == "Healthy"


def test_before_the_operator_has_seen_it_nothing_is_current() -> None:
    facts = Facts(generation=2, revision=2)
    stale = portfolio(facts)
    stale["metadata"]["generation"] = 3
    assert compute(stale) == "InProgress"
    assert compute({**stale, "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}) == "Terminating"


#: What the script may say where kstatus says this; beyond that the two agree.
ALSO = {"InProgress": {"Progressing", "Suspended", "Degraded"}, "Failed": {"Degraded"}, "Current": {"Healthy"}}


@given(FACTS, some.sampled_from([None, "Running", "Suspended"]))
def test_argo_and_flux_agree(facts: Facts, outcome: str | None) -> None:
    thing = portfolio(facts, outcome=outcome)
    found, said = compute(thing), health(thing)
    phase = facts.rollout.phase if facts.rollout is not None else None
    allowed = set(ALSO[found])
    if found == "InProgress" and outcome != "Suspended" and phase not in ("Paused", "RolledBack"):
        reason = next(entry["reason"] for entry in thing["status"]["conditions"] if entry["type"] == "Ready")
        waits = reason == "EndpointsUnavailable" and not _is_true(thing, "Reconciling")
        # An error is told at once, before endpoints that are on their way have settled.
        allowed = {"Degraded"} if waits or facts.terminal else {"Progressing"}
    if found == "Current" and phase in ("Paused", "RolledBack"):
        allowed = {"Suspended" if phase == "Paused" else "Degraded"}
    assert said["status"] in allowed
    assert said["message"]


def _is_true(thing: dict[str, Any], kind: str) -> bool:
    return any(entry["type"] == kind and entry["status"] == "True" for entry in thing["status"]["conditions"])
