"""``kubectl edgefolio explain``: the variant that fits an endpoint, and why no other does."""

from __future__ import annotations

import json
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgefolio.commands.explained_variants import figures, headings, variant_document
from edgefolio.decision.estimates.memory import needed_bytes
from edgefolio.decision.explain import Explanation
from edgefolio.errors import EdgefolioError
from edgefolio_kubectl.client import Cluster
from edgefolio_kubectl.commands import options
from edgefolio_kubectl.display.formatting import asked, milliseconds, span
from edgefolio_kubectl.display.terminal import console
from edgefolio_kubectl.endpoint_explanation import EndpointExplanation, explain_endpoint
from edgefolio_kubectl.object_lookup import endpoint_called
from edgefolio_kubectl.views import portfolio_views


def explain(
    endpoint: str = options.ENDPOINT,
    namespace: str | None = options.NAMESPACE,
    as_json: bool = options.JSON,
    context: str | None = options.CONTEXT,
    kubeconfig: str | None = options.KUBECONFIG,
) -> None:
    """Show which variant fits an endpoint now, what rules out each other, and what would have to change.

    It is the operator's own choice (the same code) for the endpoint's last report, once all waiting times are over;
    the waits are listed beneath. `edgefolio explain` does the same for conditions that you state.

      kubectl edgefolio explain fashion-x7k2p    # by the name of its pod

      kubectl edgefolio explain edge-1           # the only one on a node
    """
    cluster = Cluster(kubeconfig=kubeconfig, context=context, namespace=namespace)
    views = portfolio_views(cluster.portfolios(cluster.namespace), cluster.endpoints(cluster.namespace))
    portfolio, found = endpoint_called(endpoint, views, namespace=cluster.namespace)
    if found.spec is None:
        raise EdgefolioError(f"{found.name} holds a spec that this version cannot read; update kubectl-edgefolio.")
    explained = explain_endpoint(portfolio, found, found.spec, now=cluster.now())
    if as_json:
        typer.echo(json.dumps(explanation_document(explained), indent=2))
    else:
        show(explained, console())


def show(explained: EndpointExplanation, out: Console) -> None:
    """Print the explanation for people."""
    endpoint, observed, current = explained.endpoint, explained.observation, explained.current_decision
    serves = endpoint.status.active_variant if endpoint.status.active_variant else "nothing"
    revision = f", revision {endpoint.revision}" if endpoint.revision else ""
    out.print(Text(f"{endpoint.name} on {endpoint.node}: serves {serves} as {explained.spec.model_name}{revision}."))
    out.print(Text(f"Asked: {asked(explained.spec.objectives)}."))
    if current is not None:
        who = "The agent, alone, says" if current.by == "Agent" else "The operator says"
        out.print(Text(f"{who}: {current.action.value} {current.reason}: {current.message}"))
    out.print(
        Text("Its agent has not reported yet." if observed is None else f"Seen {span(observed.age_seconds)} ago.")
    )
    explanation = explained.explanation
    if explanation is None:
        out.print(Text("No revision with variants is published for it yet.", style="bold"))
        return
    if explanation.distrust is not None:
        out.print(Text(f"Nothing is decided on its figures now: {explanation.distrust}", style="yellow"))
    out.print(Text(_conditions(explanation)))
    if explained.profile:
        out.print(Text(explained.profile))
    out.print(_table(explanation))
    out.print(Text(_conclusion(explained, explanation), style="bold"))
    for line in explained.timers:
        out.print(Text(f"- {line}"))


def explanation_document(explained: EndpointExplanation) -> dict[str, Any]:
    """The explanation for programs."""
    endpoint, current, explanation = explained.endpoint, explained.current_decision, explained.explanation
    return {
        "namespace": endpoint.namespace,
        "endpoint": endpoint.name,
        "node": endpoint.node,
        "revision": endpoint.revision,
        "activeVariant": endpoint.status.active_variant,
        "targetVariant": endpoint.target,
        "pinned": endpoint.pinned,
        "paused": endpoint.paused,
        "said": None
        if current is None
        else {"action": current.action.value, "reason": current.reason, "message": current.message, "by": current.by},
        "observationAgeSeconds": None if explained.observation is None else round(explained.observation.age_seconds, 1),
        "profile": explained.profile or None,
        "distrust": None if explanation is None else explanation.distrust,
        "computeFactor": None if explanation is None else explanation.state.compute_factor,
        "arrivalRate": None if explanation is None else explanation.state.arrival_rate,
        "transportMilliseconds": None if explanation is None else explanation.state.transport_milliseconds,
        "chosen": None if explanation is None else explanation.chosen,
        "objectivesMet": None if explanation is None else explanation.objectives_met,
        "variants": []
        if explanation is None
        else [
            {
                **variant_document(entry),
                "quarantined": entry.prediction.quarantined,
                "wouldFitWith": list(entry.remedies),
            }
            for entry in explanation.variants
        ],
        "timers": list(explained.timers),
    }


def _conditions(explanation: Explanation) -> str:
    state = explanation.state
    parts = [f"compute takes {state.compute_factor:.2f}x the profile's time"]
    if state.arrival_rate is not None:
        parts.append(f"up to {state.arrival_rate:.1f} requests/s lately")
    if state.transport_milliseconds:
        parts.append(f"{milliseconds(state.transport_milliseconds)} of transport")
    return f"Conditions: {', '.join(parts)}."


def _table(explanation: Explanation) -> Table:
    table = Table()
    table.add_column("variant", overflow="fold")
    for heading in (*headings(), "MiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("why", overflow="fold", ratio=3)
    table.add_column("would fit with", overflow="fold", ratio=2)
    for entry in explanation.variants:
        table.add_row(
            Text(entry.profile.name),
            *figures(entry),
            f"{needed_bytes(entry.profile) / 2**20:.0f}",
            Text(entry.why),
            Text("; and ".join(entry.remedies)),
            style="bold green" if entry.chosen else None,
        )
    return table


def _conclusion(explained: EndpointExplanation, explanation: Explanation) -> str:
    if explained.endpoint.pinned:
        return f"{explained.endpoint.target} is pinned and serves whatever the figures say: kubectl edgefolio unpin."
    if explanation.chosen is None:
        return "Fits: none. Nothing can be loaded into the memory there is."
    fit = f"Fits: {explanation.chosen}"
    if not explanation.objectives_met:
        fit += ", though no variant meets all objectives (ObjectivesNotMet)"
    if explained.endpoint.paused:
        return f"{fit}; but the endpoint is paused: kubectl edgefolio resume, or the portfolio's policy."
    return f"{fit}."
