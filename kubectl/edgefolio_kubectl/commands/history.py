"""``kubectl edgefolio history``: the last changes of the variant that endpoints serve."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgefolio.specification.endpoint import SwitchReport
from edgefolio_kubectl.client import Cluster
from edgefolio_kubectl.commands import options
from edgefolio_kubectl.display.formatting import age
from edgefolio_kubectl.display.terminal import console
from edgefolio_kubectl.object_lookup import endpoint_called
from edgefolio_kubectl.views import EndpointView, portfolio_views

Entry = tuple[EndpointView, SwitchReport]


def history(
    endpoint: str | None = typer.Argument(
        None, metavar="ENDPOINT", help="A ModelEndpoint, or the node of the only one there; default: all."
    ),
    namespace: str | None = options.NAMESPACE,
    as_json: bool = options.JSON,
    context: str | None = options.CONTEXT,
    kubeconfig: str | None = options.KUBECONFIG,
) -> None:
    """Show the last 16 changes of the served variant of each endpoint, newest first: when, from what to what, why.

    Agents keep them as long as their pod lives, or on the node with serving.managed.storage.hostPath. Times are by the
    node's clock.

      kubectl edgefolio history          # all endpoints of the namespace

      kubectl edgefolio history edge-1   # the only one on a node
    """
    cluster = Cluster(kubeconfig=kubeconfig, context=context, namespace=namespace)
    views = portfolio_views(cluster.portfolios(cluster.namespace), cluster.endpoints(cluster.namespace))
    if endpoint is not None:
        chosen = [endpoint_called(endpoint, views, namespace=cluster.namespace)[1]]
    else:
        chosen = [each for portfolio in views for each in portfolio.endpoints]
    entries = switches_of(chosen)
    if as_json:
        typer.echo(json.dumps(history_document(entries), indent=2))
    else:
        show(entries, console(), now=cluster.now())


def switches_of(endpoints: Sequence[EndpointView]) -> list[Entry]:
    """The changes of these endpoints, newest first."""
    entries = [(endpoint, switch) for endpoint in endpoints for switch in endpoint.status.switches]
    return sorted(entries, key=lambda entry: entry[1].time, reverse=True)


def show(entries: Sequence[Entry], out: Console, *, now: float) -> None:
    """Print the changes for people."""
    if not entries:
        out.print(Text("No endpoint has changed its variant yet, as far as its agent remembers."))
        return
    table = Table()
    for heading in ("when", "node", "endpoint", "from", "to", "why"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "when")
    for endpoint, switch in entries:
        alone = ", the agent alone" if switch.decided_by == "Agent" else ""
        table.add_row(
            *(age(switch.time, now=now), Text(endpoint.node or "?"), Text(endpoint.name)),
            *(
                Text(_served(switch.from_variant, switch.from_revision)),
                Text(_served(switch.to_variant, switch.to_revision)),
            ),
            Text(f"{switch.reason}{alone}"),
        )
    out.print(table)


def history_document(entries: Sequence[Entry]) -> dict[str, Any]:
    """The changes for programs."""
    return {
        "switches": [
            {
                "namespace": endpoint.namespace,
                "endpoint": endpoint.name,
                "node": endpoint.node,
                "portfolio": endpoint.portfolio,
                **switch.model_dump(mode="json", by_alias=True),
            }
            for endpoint, switch in entries
        ]
    }


def _served(variant: str | None, revision: int | None) -> str:
    return "nothing" if variant is None else f"{variant} of revision {revision}"
