"""A portfolio as a tree for the terminal: state, revisions with their variants, endpoints with their decisions."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from edgefolio.decision.types import Action
from edgefolio.specification.conditions import Condition, Failure, time_seconds
from edgefolio.specification.objectives import ObjectivesSpecification
from edgefolio.specification.portfolio_status import CheckStatus, JobStatus, RevisionStatus, RolloutStatus
from edgefolio.specification.validation.tolerant import understood
from edgefolio_kubectl.display.formatting import age, asked, mebibytes, milliseconds, percent, span
from edgefolio_kubectl.views import EndpointView, LastObservation, PortfolioView

GOOD, BAD, WAITING, QUIET = "green", "bold red", "yellow", "dim"
_DIGEST_LETTERS = 12


def status_trees(portfolios: tuple[PortfolioView, ...], *, now: float, with_namespace: bool) -> RenderableType:
    """The trees of all portfolios."""
    if not portfolios:
        return Text("There is no ModelPortfolio.")
    return Group(*(portfolio_tree(entry, now=now, with_namespace=with_namespace) for entry in portfolios))


def portfolio_tree(portfolio: PortfolioView, *, now: float, with_namespace: bool = False) -> Tree:
    """The tree of one portfolio."""
    name = f"{portfolio.namespace}/{portfolio.name}" if with_namespace else portfolio.name
    tree = Tree(_headline(portfolio, name), guide_style=QUIET)
    if portfolio.exists:
        tree.add(_objectives_line(portfolio))
        for condition in portfolio.notable:
            tree.add(_condition(condition))
        if portfolio.status.job is not None:
            tree.add(_job(portfolio.status.job, now=now))
        if portfolio.status.check is not None:
            tree.add(_check(portfolio.status.check, now=now))
        if portfolio.status.rollout is not None and portfolio.status.rollout.phase != "Completed":
            tree.add(_rollout(portfolio.status.rollout))
        for revision in reversed(portfolio.status.revisions):
            tree.add(_revision_line(portfolio, revision, now=now)).add(_variants(portfolio, revision))
    branch = tree.add(_endpoints_line(portfolio))
    for endpoint in portfolio.endpoints:
        _add_endpoint(branch, portfolio, endpoint, now=now)
    failure = portfolio.status.last_failure
    if failure is not None and not any(entry.message == failure.message for entry in portfolio.notable):
        tree.add(_failure(failure, now=now))
    return tree


def _headline(portfolio: PortfolioView, name: str) -> Text:
    line = Text().append(name, style="bold")
    if not portfolio.exists:
        return line.append(": the ModelPortfolio is gone, endpoints are left", style=WAITING)
    ready = portfolio.condition("Ready")
    if ready is None:
        return line.append(": not seen by the operator yet. Does it run?", style=WAITING)
    stalled = any(entry.type == "Stalled" and entry.status == "True" for entry in portfolio.status.conditions)
    word, style = {
        "True": ("Ready", GOOD),
        "Unknown": ("Ready unknown", WAITING),
        "False": ("not Ready", BAD if stalled else WAITING),
    }[ready.status]
    line.append(": ").append(word, style=style).append(f", {ready.reason}")
    if ready.message:
        line.append(f": {ready.message}")
    if portfolio.outdated:
        line.append(" (the operator has not looked at the newest spec yet)", style=WAITING)
    return line


def _objectives_line(portfolio: PortfolioView) -> Text:
    serving, switching = _part(portfolio.spec, "serving"), _part(portfolio.spec, "switching")
    try:
        wanted = asked(understood(ObjectivesSpecification, portfolio.spec.get("objectives") or {}))
    except ValidationError:
        wanted = "something that cannot be read"
    line = Text(f"asked: {wanted}; policy {switching.get('policy', 'Auto')!s}")
    if portfolio.spec.get("pinnedRevision"):
        line.append(f"; pinned to revision {portfolio.spec['pinnedRevision']}")
    address = portfolio.status.address
    at = "adopted Triton servers" if address is None else address.url
    return line.append(f"; model {serving.get('modelName', '?')!s} at {at}")


def _condition(condition: Condition) -> Text:
    bad = condition.type in ("Stalled", "Degraded", "Conflicted") or (
        condition.status == "False" and condition.type != "NodeMetricsAvailable"
    )
    line = Text().append(condition.type, style=BAD if bad else WAITING)
    if condition.status != "True":
        line.append(f" {condition.status}")
    line.append(f", {condition.reason}")
    return line.append(f": {condition.message}" if condition.message else "")


def _job(job: JobStatus, *, now: float) -> Text:
    style = {"Succeeded": GOOD, "Failed": BAD}.get(job.outcome, WAITING)
    line = Text("job ").append(job.name).append(": ").append(job.outcome, style=style)
    if job.outcome in ("Running", "Suspended"):
        stage = f"{job.stage}, " if job.stage else ""
        line.append(f", {stage}{job.progress_percent} %")
        if job.start_time is not None:
            line.append(f", begun {age(job.start_time, now=now)}")
    elif job.completion_time is not None:
        line.append(f" {age(job.completion_time, now=now)}")
    if job.attempt > 1:
        line.append(f", attempt {job.attempt}")
    return line.append(f": {job.message}" if job.message else "")


def _check(check: CheckStatus, *, now: float) -> Text:
    style = {"Found": GOOD, "Refused": BAD}.get(check.outcome, WAITING)
    line = Text("repository: ").append(check.outcome, style=style)
    line.append(", never looked into yet" if check.time is None else f", looked into {age(check.time, now=now)}")
    line.append(", being looked into" if check.job else "")
    line.append(f", {check.reason}" if check.reason else "")
    return line.append(f": {check.message}" if check.message else "")


def _rollout(rollout: RolloutStatus) -> Text:
    style = WAITING if rollout.phase == "Progressing" else BAD
    line = Text(f"rollout of revision {rollout.revision}: ").append(rollout.phase, style=style)
    line.append(f", {rollout.updated} endpoints were sent there")
    reason = f", {rollout.reason}" if rollout.reason else ""
    return line.append(reason).append(f": {rollout.message}" if rollout.message else "")


def _revision_line(portfolio: PortfolioView, revision: RevisionStatus, *, now: float) -> Text:
    current = revision.number == portfolio.status.current_revision
    line = Text().append(f"revision {revision.number}", style="bold" if current else "")
    line.append(", current" if current else "")
    line.append(f", {span(now - time_seconds(revision.published_time))} old")
    return line.append(f", manifest {revision.manifest_digest[:_DIGEST_LETTERS]}", style=QUIET)


def _variants(portfolio: PortfolioView, revision: RevisionStatus) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(overflow="fold", min_width=8)
    for _ in range(3):
        table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for variant in sorted(revision.variants, key=lambda entry: -entry.rank):
        count = portfolio.serving(variant.name, revision.number)
        table.add_row(
            Text(variant.name, style=GOOD if count else ""),
            percent(variant.accuracy_percent),
            f"p95 {milliseconds(float(variant.p95_milliseconds))}",
            mebibytes(max(variant.memory_peak_bytes, variant.memory_steady_bytes)),
            f"serves on {count}" if count else "",
        )
    for split in sorted(revision.splits, key=lambda entry: -entry.rank):
        table.add_row(
            Text(split.name),
            percent(split.accuracy_percent),
            f"predicted {milliseconds(float(split.predicted_milliseconds))}",
            mebibytes(split.memory_bytes),
            Text(f"a split over {split.workers} nodes: no agent serves it", style=QUIET),
        )
    return table


def _endpoints_line(portfolio: PortfolioView) -> Text:
    counts = portfolio.status.endpoints
    if not portfolio.endpoints:
        return Text("endpoints: none", style=QUIET)
    if counts is None:
        return Text(f"endpoints: {len(portfolio.endpoints)}")
    line = Text(f"endpoints: {counts.available} of {counts.total} available, ")
    line.append(f"{counts.meeting_objectives} of {counts.total} inside the objectives")
    more = len(portfolio.endpoints) - counts.total
    return line.append(f"; {more} more starting or on a lost node" if more > 0 else "")


def _add_endpoint(branch: Tree, portfolio: PortfolioView, endpoint: EndpointView, *, now: float) -> None:
    revision = portfolio.revision(endpoint.revision)
    observed = endpoint.last_observation(revision.variants if revision is not None else (), now=now)
    node = branch.add(_endpoint_line(portfolio, endpoint, observed))
    node.add(_observation_line(endpoint, observed, now=now))
    current = endpoint.current_decision
    if current is not None:
        line = Text().append(current.action.value, style=WAITING if current.action is Action.SWITCH else "")
        line.append(f" {current.reason}", style="bold")
        line.append(", says the agent alone" if current.by == "Agent" else "")
        node.add(line.append(f": {current.message}" if current.message else ""))
    for condition in endpoint.status.conditions:
        if condition.type == "Synced" and condition.status != "True":
            node.add(_condition(condition))
    for entry in endpoint.status.decision.quarantined if endpoint.status.decision is not None else ():
        left = time_seconds(entry.until) - now
        if left > 0:
            cause = f": {entry.cause}" if entry.cause else ""
            node.add(Text(f"{entry.variant} is quarantined for {span(left)} more{cause}", style=WAITING))
    if endpoint.status.last_failure is not None:
        node.add(_failure(endpoint.status.last_failure, now=now))


def _endpoint_line(portfolio: PortfolioView, endpoint: EndpointView, observed: LastObservation | None) -> Text:
    line = Text().append(endpoint.name, style="bold").append(f" on {endpoint.node or '?'}: ")
    active, target = endpoint.status.active_variant, endpoint.target
    serves = active is not None and (observed is None or observed.server == "Serving")
    line.append(active if active else "serves nothing", style=GOOD if serves else BAD)
    if active is not None and not serves:
        line.append(" does not answer", style=BAD)
    number = endpoint.status.active_revision
    if number is not None and number != portfolio.status.current_revision:
        line.append(f" of revision {number}")
    moves = target is not None and (target != active or endpoint.revision != number)
    if moves:
        to = f" of revision {endpoint.revision}" if endpoint.revision != number and number is not None else ""
        line.append(f" -> {target!s}{to}", style=WAITING)
    decision = endpoint.status.decision
    met = None if decision is None or (observed is not None and observed.stale) else decision.objectives_met
    if met is not None:
        line.append(", ").append("objectives met" if met else "objectives missed", style=GOOD if met else BAD)
    flags = (("autonomous", endpoint.autonomous), ("pinned", endpoint.pinned), ("paused", endpoint.paused))
    for word, holds in flags:
        if holds:
            line.append(f", {word}", style=WAITING)
    return line


def _observation_line(endpoint: EndpointView, observed: LastObservation | None, *, now: float) -> Text:
    if observed is None:
        since = f" ({age(endpoint.created, now=now).removesuffix(' ago')} old)" if endpoint.created else ""
        return Text(f"its agent has not reported yet{since}", style=WAITING)
    parts = []
    objective = None if endpoint.spec is None else endpoint.spec.objectives.latency_p95_milliseconds
    if observed.p95_milliseconds is not None:
        about = "about " if observed.p95_is_estimated else ""
        of = "" if objective is None else f" of {objective} ms"
        parts.append(f"p95 {about}{milliseconds(observed.p95_milliseconds)}{of}")
    elif objective is not None:
        parts.append(f"no traffic; at most {objective} ms are asked")
    if observed.requests_per_second is not None and observed.requests_per_second > 0:
        parts.append(f"{observed.requests_per_second:.1f} requests/s")
    decision = endpoint.status.decision
    if decision is not None and decision.node_factor_percent != 100:
        parts.append(f"{decision.node_factor_percent / 100:.2f}x the profile's time")
    if observed.working_set_bytes is not None:
        limit = f" of {mebibytes(observed.memory_limit_bytes)}" if observed.memory_limit_bytes else ""
        parts.append(f"memory {mebibytes(observed.working_set_bytes)}{limit}")
    line = Text(", ".join(parts) + (", " if parts else ""))
    line.append(f"seen {span(observed.age_seconds)} ago")
    return line.append(", overdue: the agent is silent", style=BAD) if observed.stale else line


def _failure(failure: Failure, *, now: float) -> Text:
    about = " ".join(
        part
        for part in (
            f"of {failure.variant}" if failure.variant else "",
            f"in revision {failure.revision}" if failure.revision else "",
            f"at {failure.location}" if failure.location else "",
        )
        if part
    )
    line = Text(f"last failure {age(failure.time, now=now)}, {failure.reason}", style=QUIET)
    return line.append(f" {about}" if about else "").append(f": {failure.message}" if failure.message else "")


def _part(document: Any, key: str) -> Any:
    found = document.get(key)
    return found if isinstance(found, dict) else {}
