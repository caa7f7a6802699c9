"""A Job for each class of nodes: what it measures reaches the orders, and nothing waits for it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from draft_profiles import EPYC, PI, XEON
from hypothesis import given
from hypothesis import strategies as st
from played_reports import COMPUTE, VARIANTS
from reconciled_site import IMAGES, NOW, Site, published

from edgefolio.contract.job_report import (
    LARGEST_MESSAGE_BYTES,
    FailureReport,
    ProfiledReport,
    PublishedReport,
    report_of_message,
)
from edgefolio.contract.making_key import making_key
from edgefolio.contract.node_profiles import processor_report, profile_order, variants_for
from edgefolio.processor_class import RELEVANT_FLAGS, Processor
from edgefolio.specification.conditions import time_text
from edgefolio.specification.endpoint import EndpointStatus
from edgefolio.specification.portfolio_status import ProfileStatus, RevisionStatus, VariantStatus
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator import labels
from edgefolio_operator.resources.profile_job import build_profile_job
from edgefolio_operator.revisions.profiling import KEPT_REVISIONS, ProfilingPlan, plan_profiling, replaced

SELECTORS = [
    {"name": "epyc", "nodeSelector": {"cpu": "epyc"}},
    {"name": "pi", "nodeSelector": {"cpu": "pi"}},
]


def report_of(node: Processor) -> Any:
    return processor_report(node.model, node.flags)


def profiled(node: Processor, *, times: float, revision: int = 1, note: str = "") -> ProfiledReport:
    return ProfiledReport(
        revision=revision,
        manifest_digest=f"{revision:064x}",
        class_name=node.class_name,
        digest=f"{node.class_name:x<64}".encode().hex()[:64],
        processor=report_of(node),
        note=note,
        variants=tuple(
            entry.model_copy(
                update={
                    "mean_milliseconds": f"{COMPUTE[entry.name] * times:.3f}",
                    "p95_milliseconds": f"{COMPUTE[entry.name] * times * 1.2:.3f}",
                }
            )
            for entry in VARIANTS
        ),
    )


def made(revision: int, node: Processor = XEON) -> PublishedReport:
    return published(revision).model_copy(update={"measured_on": report_of(node)})


class Measuring(Site):
    """A site whose first revision is published, and whose agents say what their processors are."""

    def __init__(self, processors: dict[str, Processor], selectors: Any = SELECTORS, **spec: Any) -> None:
        super().__init__(profiling={"nodeSelectors": selectors}, **spec)
        self.processors = processors
        self.held: dict[str, str] = {}
        self.cycle()
        self.end_job(made(1))
        self.cycle()

    def report(self, node: str, **options: Any) -> None:
        super().report(node, **options)
        status = self.endpoints[f"digits-{node}"]["status"]
        if node in self.processors:
            status["processor"] = report_of(self.processors[node]).model_dump(mode="json", by_alias=True)
        if node in self.held:
            status["profileDigest"] = self.held[node]

    def fetch(self, node: str) -> None:
        """The agent fetches what it is ordered."""
        digest = (self.endpoints[f"digits-{node}"]["spec"].get("profile") or {}).get("digest")
        if digest is None:
            self.held.pop(node, None)
        else:
            self.held[node] = digest

    def profile_jobs(self) -> dict[str, dict[str, Any]]:
        return {
            name: job
            for name, job in self.jobs.items()
            if job["metadata"]["labels"][labels.COMPONENT_LABEL] == labels.PROFILE_COMPONENT
        }

    def job_for(self, value: str) -> str:
        (name,) = (
            name
            for name, job in self.profile_jobs().items()
            if job["spec"]["template"]["spec"]["nodeSelector"] == {"cpu": value}
        )
        return name

    def end(self, value: str, report: Any) -> None:
        """The Job for these nodes ends with this report."""
        name = self.job_for(value)
        self.jobs[name] = self.jobs.pop(name)  # the newest
        self.end_job(report)
        if isinstance(report, ProfiledReport):
            self.jobs[name]["status"]["conditions"][0]["type"] = "Complete"

    def profiles(self) -> dict[str, dict[str, Any]]:
        (revision,) = (entry for entry in self.portfolio["status"]["revisions"] if entry["number"] == 1)
        return {entry["name"]: entry for entry in revision.get("profiles", ())}


def test_a_published_revision_is_measured_on_each_class_once() -> None:
    site = Measuring({})
    assert len(site.profile_jobs()) == 2
    assert {entry["outcome"] for entry in site.profiles().values()} == {"Running"}
    assert site.condition("ProfilesMeasured") == ("Unknown", "Profiling")
    pod = site.jobs[site.job_for("epyc")]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "example.com/pruner:1"
    assert pod["automountServiceAccountToken"] is False
    command = pod["containers"][0]["command"]
    assert command[:5] == ["python3", "-m", "edgefolio_pruner.profile_job", "s3://bucket/portfolios", "digits"]
    assert command[command.index("--manifest-digest") + 1] == f"{1:064x}"
    before = set(site.profile_jobs())
    site.cycle()
    assert set(site.profile_jobs()) == before
    site.end("epyc", profiled(EPYC, times=2))
    site.end("pi", profiled(PI, times=20))
    site.cycle()
    assert site.condition("ProfilesMeasured") == ("True", "Profiled")
    assert site.profiles()["pi"]["className"] == PI.class_name
    # A Job that its time to live removed is not run again.
    for name in before:
        del site.jobs[name]
    site.cycle(3600)
    assert not site.profile_jobs()
    # The next revision is measured anew.
    site.portfolio["metadata"]["annotations"][labels.MAKE_REQUESTED_ANNOTATION] = "again"
    site.cycle()
    site.end_job(made(2))
    site.cycle()
    assert len(site.profile_jobs()) == 2


def test_nothing_is_measured_that_nobody_asked_for() -> None:
    site = Measuring({}, selectors=[])
    assert not site.profile_jobs()
    assert site.condition("ProfilesMeasured") == ("True", "NotAsked")
    site.edit(profiling={"nodeSelectors": SELECTORS[:1]})
    site.cycle()
    assert len(site.profile_jobs()) == 1
    # It is not what the revision was made from: nothing is made again.
    assert sum(job["metadata"]["labels"][labels.COMPONENT_LABEL] == "pruner" for job in site.jobs.values()) == 1
    # Another selector is measured anew, and the Job of the old one goes; an entry that is gone is forgotten.
    site.edit(profiling={"nodeSelectors": [{"name": "epyc", "nodeSelector": {"cpu": "other"}}]})
    site.cycle()
    assert site.job_for("other")
    assert len(site.profile_jobs()) == 1
    site.edit(profiling={})
    site.cycle()
    assert not site.profile_jobs()
    assert not site.profiles()


def test_selectors_are_no_part_of_what_a_revision_is_made_from() -> None:
    site = Site()
    keys = {
        making_key(
            ModelPortfolio.model_validate(
                {**site.portfolio, "spec": {**site.portfolio["spec"], "profiling": profiling}}
            ).spec
        )
        for profiling in ({}, {"nodeSelectors": SELECTORS})
    }
    assert len(keys) == 1


def test_a_failed_measurement_is_said_and_made_again_later() -> None:
    site = Measuring({})
    site.end("epyc", FailureReport(kind="BadInput", field="--sign", problem="the revision is signed.", remedy="Sign."))
    site.end("pi", profiled(PI, times=20, note="The machine was busy."))
    plan = site.cycle()
    assert site.condition("ProfilesMeasured") == ("False", "ProfilingFailed")
    assert "epyc: --sign: the revision is signed. Sign." in site.message("ProfilesMeasured")
    assert [event.reason for event in plan.events].count("ProfilingFailed") == 1
    assert site.condition("Ready")[1] != "ProfilingFailed"
    first = site.profiles()["epyc"]["job"]
    site.cycle(3601)
    assert site.profiles()["epyc"]["job"] != first
    assert site.profiles()["pi"]["message"] == "The machine was busy."


def test_figures_of_another_revision_are_a_failure() -> None:
    site = Measuring({})
    site.end("epyc", profiled(EPYC, times=2, revision=7))
    site.end("pi", made(1))
    site.cycle()
    assert {entry["outcome"] for entry in site.profiles().values()} == {"Failed"}


def test_an_endpoint_is_ordered_the_profile_of_its_processor_and_decided_for_with_it() -> None:
    site = Measuring({"edge-1": EPYC, "edge-2": XEON})
    for node in ("edge-1", "edge-2"):
        site.report(node)
    site.cycle()
    # Before it is measured: the nearest, and what it does not know is said.
    evidence = site.endpoints["digits-edge-1"]["spec"]["profile"]["evidence"]
    assert "lacks avx512f, avx512_vnni, amx_int8" in evidence
    assert "int8 variants may be much slower" in evidence
    assert "digest" not in site.endpoints["digits-edge-1"]["spec"]["profile"]
    site.end("epyc", profiled(EPYC, times=1.5))
    site.end("pi", profiled(PI, times=20))
    site.cycle()
    order = site.endpoints["digits-edge-1"]["spec"]["profile"]
    assert order["name"] == EPYC.class_name
    assert "the node's own class" in order["evidence"]
    other = site.endpoints["digits-edge-2"]["spec"]["profile"]
    assert "name" not in other
    assert "the node's own class" in other["evidence"]
    # It predicts with it once the agent has it: dense takes 1.5 x 10 ms x 1.2 there, of 20 ms.
    site.fetch("edge-1")
    for node in ("edge-1", "edge-2"):
        site.report(node)
    plan = site.cycle()
    predicted = {
        node: {entry.variant: entry.p95_milliseconds for entry in plan.decisions[f"digits-{node}"].predictions}
        for node in ("edge-1", "edge-2")
    }
    assert predicted["edge-1"]["small"] == pytest.approx(1.5 * predicted["edge-2"]["small"], rel=0.6)
    assert predicted["edge-1"]["small"] > predicted["edge-2"]["small"]
    assert plan.decisions["digits-edge-1"].profile == order["evidence"]


def test_a_site_that_may_only_read_looks_with_what_it_has() -> None:
    portfolio = ModelPortfolio.model_validate(
        {
            "apiVersion": "edgefolio.dev/v1alpha1",
            "kind": "ModelPortfolio",
            "metadata": {"name": "digits", "namespace": "models"},
            "spec": {
                "repository": {"uri": "s3://bucket/portfolios", "readSecretRef": {"name": "read"}},
                "serving": {"modelName": "digits", "managed": {"tolerations": [{"key": "edge", "operator": "Exists"}]}},
                "profiling": {"nodeSelectors": SELECTORS[:1]},
            },
        }
    )
    revision = RevisionStatus(number=1, manifest_digest="0" * 64, published_time=time_text(0), variants=VARIANTS)
    (created,) = plan_profiling(portfolio, revision=revision, jobs=(), now=NOW).create
    job = build_profile_job(portfolio, created, revision=revision, owner={"uid": "u"}, images=IMAGES)
    pod = job["spec"]["template"]["spec"]
    assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "read"}}]
    assert (pod["nodeSelector"], pod["tolerations"]) == ({"cpu": "epyc"}, [{"key": "edge", "operator": "Exists"}])
    assert len(job["metadata"]["name"]) <= 63
    assert job["spec"]["activeDeadlineSeconds"] > 0


def test_an_agent_of_before_is_decided_for_as_before() -> None:
    site = Measuring({})
    site.end("epyc", profiled(EPYC, times=9))
    site.end("pi", profiled(PI, times=20))
    for node in ("edge-1", "edge-2"):
        site.report(node)
    site.cycle()
    for endpoint in site.endpoints.values():
        assert "profile" not in endpoint["spec"]
    revision = RevisionStatus.model_validate(site.portfolio["status"]["revisions"][0])
    assert variants_for(revision, EndpointStatus()) == revision.variants


def test_a_revision_of_before_has_no_profile_to_order() -> None:
    revision = RevisionStatus(number=1, manifest_digest="0" * 64, published_time=time_text(0), variants=VARIANTS)
    assert profile_order(revision, EndpointStatus(processor=report_of(EPYC))) is None


def test_a_digest_that_the_operator_never_ordered_changes_nothing() -> None:
    site = Measuring({"edge-1": EPYC})
    site.end("epyc", profiled(EPYC, times=2))
    site.cycle()
    revision = RevisionStatus.model_validate(site.portfolio["status"]["revisions"][0])
    status = EndpointStatus(processor=report_of(EPYC), profile_digest="9" * 64)
    assert variants_for(revision, status) == revision.variants


LARGEST = VariantStatus(
    name="v" * 63,
    rank=99,
    accuracy_percent="99.999999",
    mean_milliseconds="999999999.999999",
    p95_milliseconds="999999999.999999",
    load_milliseconds="999999999.999999",
    memory_peak_bytes=2**53,
    memory_steady_bytes=2**53,
)


@given(model=st.text(max_size=400))
def test_the_largest_reports_fit_and_come_back(model: str) -> None:
    processor = processor_report(model, RELEVANT_FLAGS)
    for report in (
        PublishedReport(revision=2**24, manifest_digest="f" * 64, variants=(LARGEST,) * 16, measured_on=processor),
        ProfiledReport(
            revision=2**24,
            manifest_digest="f" * 64,
            class_name="c" * 63,
            digest="e" * 64,
            processor=processor,
            note="n" * 150,
            variants=(LARGEST,) * 16,
        ),
    ):
        text = report.to_message()
        assert len(text.encode()) <= LARGEST_MESSAGE_BYTES
        assert report_of_message(text) == report
        assert json.loads(text)["kind"] == report.kind


def test_profiles_of_two_revisions_are_kept_those_of_the_current_one_among_them() -> None:
    entry = ProfileStatus(name="pi", key="0" * 16, job="digits-profile-1", outcome="Running", time=time_text(0))
    revisions = tuple(
        RevisionStatus(number=number, manifest_digest=f"{number:064x}", published_time=time_text(0), profiles=(entry,))
        for number in (1, 2, 3, 4)
    )
    kept = replaced(revisions, ProfilingPlan(revision=revisions[1]))
    assert [revision.number for revision in kept if revision.profiles] == [2, 4]
    assert [revision.number for revision in kept] == [1, 2, 3, 4]
    assert KEPT_REVISIONS == 2
