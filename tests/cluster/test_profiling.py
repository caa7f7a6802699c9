"""Measuring a revision on other classes of nodes, with a real API server and Kubernetes' own Job controller."""

from __future__ import annotations

from typing import Any

from cluster_site import PUBLISHED, wait_for
from draft_profiles import EPYC, XEON
from job_fixtures import MAKING, controllers, namespace, published, site
from job_site import JobSite
from played_reports import VARIANTS

from edgefolio.contract.job_report import FailureReport, ProfiledReport
from edgefolio.contract.node_profiles import processor_report

__all__ = ["controllers", "namespace", "site"]

SELECTORS: list[dict[str, Any]] = [{"name": "epyc", "nodeSelector": {"cpu": "epyc"}}]
MEASURED = ProfiledReport(
    revision=PUBLISHED.revision,
    manifest_digest=PUBLISHED.manifest_digest,
    class_name=EPYC.class_name,
    digest="2" * 64,
    processor=processor_report(EPYC.model, EPYC.flags),
    variants=VARIANTS,
)


def profiles(site: JobSite) -> list[dict[str, Any]]:
    (revision,) = site.status().get("revisions", [{}])
    found: list[dict[str, Any]] = revision.get("profiles", [])
    return found


def test_a_job_for_each_class_measures_what_was_published(site: JobSite) -> None:
    site.portfolio(**MAKING, profiling={"nodeSelectors": SELECTORS})
    made = PUBLISHED.model_copy(update={"measured_on": processor_report(XEON.model, XEON.flags)})
    site.end(site.start("pruner"), 0, made.to_message())
    wait_for(lambda: published(site))
    pod = site.start("profile")
    assert pod["spec"]["nodeSelector"] == {"cpu": "epyc"}
    assert site.condition("ProfilesMeasured") == ("Unknown", "Profiling")
    site.end(pod, 0, MEASURED.to_message())
    wait_for(lambda: site.condition("ProfilesMeasured") == ("True", "Profiled"))
    (entry,) = profiles(site)
    assert (entry["className"], entry["digest"], entry["outcome"]) == (EPYC.class_name, "2" * 64, "Measured")
    # A finished Job that its time to live removed is not run again.
    (job,) = site.jobs("profile")
    site.kubernetes.kubectl("delete", "job", job["metadata"]["name"])
    site.portfolio(**MAKING, profiling={"nodeSelectors": SELECTORS}, objectives={"latencyP95Milliseconds": 30})
    wait_for(lambda: site.status()["observedGeneration"] > 1)
    assert site.jobs("profile") == []


def test_a_failure_is_said_and_stops_nothing(site: JobSite) -> None:
    site.portfolio(**MAKING, profiling={"nodeSelectors": SELECTORS})
    site.end(site.start("pruner"), 0, PUBLISHED.to_message())
    wait_for(lambda: published(site))
    failure = FailureReport(kind="BadInput", field="--sign", problem="the revision is signed.", remedy="Sign it.")
    for _ in range(2):
        site.end(site.start("profile", seconds=60), 2, failure.to_message())
    wait_for(lambda: site.condition("ProfilesMeasured") == ("False", "ProfilingFailed"), seconds=60)
    assert failure.one_line() in site.message("ProfilesMeasured")
    assert site.condition("Ready") == ("True", "NoEndpoints")
