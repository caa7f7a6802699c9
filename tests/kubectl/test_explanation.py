"""Why an endpoint serves what it serves: the same judgement as the operator's, on the same report."""

from __future__ import annotations

from draft_profiles import EPYC, XEON
from reconciled_site import Site

from edgefolio.contract.node_profiles import processor_report
from edgefolio.decision.types import Quarantine, State, UpgradeBackoff
from edgefolio.specification.serving import Switching
from edgefolio_kubectl.commands.explain import explanation_document
from edgefolio_kubectl.endpoint_explanation import EndpointExplanation, explain_endpoint, timers
from edgefolio_kubectl.views import portfolio_views


def explained(site: Site, number: int = 0, *, after: float = 1.0) -> EndpointExplanation:
    (portfolio,) = portfolio_views([site.portfolio], site.endpoints.values())
    endpoint = portfolio.endpoints[number]
    assert endpoint.spec is not None
    return explain_endpoint(portfolio, endpoint, endpoint.spec, now=site.now + after)


def test_it_comes_to_what_the_operator_does(serving: Site) -> None:
    serving.report("edge-1", slowdown=4.0, met=False)
    found = explained(serving).explanation
    assert found is not None
    assert found.chosen == "small"
    for _ in range(4):
        serving.report("edge-1", slowdown=4.0, met=False, obey=False)
        serving.cycle()
    assert serving.targets() == {"edge-1": found.chosen, "edge-2": "dense"}


def test_each_variant_says_why_not_and_what_would_help(serving: Site) -> None:
    serving.report("edge-1", slowdown=4.0, met=False)
    variants = {entry["name"]: entry for entry in explanation_document(explained(serving))["variants"]}
    assert variants["small"]["wouldFitWith"] == []
    assert variants["dense"]["why"] == "p95 48.5 ms is above 20.0 ms"
    assert variants["dense"]["wouldFitWith"] == ["latencyP95Milliseconds of at least 49"]
    serving.cycle()
    serving.edit(objectives={"latencyP95Milliseconds": 200, "minAccuracyPercent": "81.5"})
    serving.cycle()
    variants = {entry["name"]: entry for entry in explanation_document(explained(serving))["variants"]}
    assert variants["dense"]["wouldFitWith"] == []
    assert variants["small"]["wouldFitWith"] == ["minAccuracyPercent of at most 81"]


def test_a_stale_report_is_not_believed(serving: Site) -> None:
    found = explained(serving, after=120).explanation
    assert found is not None
    assert found.distrust is not None
    assert "s old; at most 15 s are believed" in found.distrust


def test_variants_of_another_revision_say_nothing_of_this_one(serving: Site) -> None:
    """While an endpoint still serves the revision before, its figures are not those of the new one's variants."""
    serving.endpoints["digits-edge-1"]["status"]["activeRevision"] = 7
    found = explained(serving)
    assert found.explanation is not None
    assert found.explanation.distrust is None
    assert found.explanation.chosen == "dense"


def test_the_profile_that_its_figures_rest_on_is_named(serving: Site) -> None:
    assert explanation_document(explained(serving))["profile"] is None, "an agent of before says no processor"
    revision, endpoint = serving.portfolio["status"]["revisions"][0], serving.endpoints["digits-edge-1"]
    slow = [{**entry, "meanMilliseconds": "15", "p95Milliseconds": "18"} for entry in revision["variants"]]
    revision["measuredOn"] = processor_report(XEON.model, XEON.flags).model_dump(mode="json", by_alias=True)
    here = processor_report(EPYC.model, EPYC.flags).model_dump(mode="json", by_alias=True)
    measured = {"name": "epyc", "key": "k", "job": "j", "outcome": "Measured", "time": revision["publishedTime"]}
    revision["profiles"] = [
        {**measured, "className": EPYC.class_name, "digest": "2" * 64, "processor": here, "variants": slow}
    ]
    endpoint["status"]["processor"] = here
    endpoint["spec"]["profile"] = {"name": EPYC.class_name, "digest": "2" * 64, "evidence": "Measured there."}
    waiting = explained(serving)
    assert "has not fetched it yet" in waiting.profile
    endpoint["status"]["profileDigest"] = "2" * 64
    held = explained(serving)
    assert held.profile == "Measured there."

    def mean_of(found: EndpointExplanation) -> dict[str, float]:
        assert found.explanation is not None
        return {entry.profile.name: entry.profile.mean_milliseconds for entry in found.explanation.variants}

    assert mean_of(waiting) == {"dense": 10, "small": 2}
    assert mean_of(held) == {"dense": 15, "small": 15}


def test_nothing_is_published_yet() -> None:
    site = Site(nodes=1)
    site.cycle()
    site.cycle(0)  # its pods are of the DaemonSet now
    found = explained(site)
    assert found.explanation is None
    assert explanation_document(found)["variants"] == []


def test_timers_say_what_is_left() -> None:
    switching = Switching(min_dwell_seconds=60, max_switches_per_hour=2)
    state = State(
        last_switch_at=970.0,
        recent_switches=(400.0, 970.0),
        quarantined=(
            Quarantine(variant="a", until=1300.0, failures=1, cause="no probe"),
            Quarantine(variant="b", until=900.0, failures=3, cause="over"),
        ),
        upgrade_backoffs=(UpgradeBackoff(variant="c", until=1600.0, bounces=2),),
    )
    assert timers(state, switching, now=1000.0) == [
        "last switch 30 s ago: another 30 s of minDwellSeconds",
        "2 of 2 switches of this hour are used; the next is free in 50 min",
        "a is quarantined for 5 min more, after 1 failure: no probe",
        "c had to be left soon after it was taken (2 times): not tried again for 10 min",
    ]
    assert timers(State(), switching, now=1000.0) == ["0 of 2 switches of this hour are used"]
