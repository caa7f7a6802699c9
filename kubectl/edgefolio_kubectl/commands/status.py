"""``kubectl edgefolio status``: portfolios, their revisions, endpoints and decisions."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from edgefolio.commands.terminal import say
from edgefolio.errors import UserError
from edgefolio_kubectl.client import ApiRequestFailed, Cluster
from edgefolio_kubectl.commands import options
from edgefolio_kubectl.display.status_document import status_document
from edgefolio_kubectl.display.status_tree import status_trees
from edgefolio_kubectl.display.terminal import console
from edgefolio_kubectl.interrupt import until_interrupted
from edgefolio_kubectl.object_lookup import portfolio_called
from edgefolio_kubectl.views import PortfolioView, portfolio_views


def status(
    name: str | None = typer.Argument(None, metavar="NAME", help="A ModelPortfolio; default: all."),
    namespace: str | None = options.NAMESPACE,
    all_namespaces: bool = typer.Option(False, "-A", "--all-namespaces", help="Look into all namespaces."),
    watch: bool = typer.Option(False, "-w", "--watch", help="Look again and again, until Ctrl-C."),
    interval: float = typer.Option(2.0, "--interval", min=0.2, max=3600, help="Seconds between two looks."),
    as_json: bool = options.JSON,
    context: str | None = options.CONTEXT,
    kubeconfig: str | None = options.KUBECONFIG,
) -> None:
    """Show portfolios as trees: state, making, revisions, endpoints with observation, decision and reason.

    Ages are by the API server's clock. Colours are for terminals; in a pipe the width is 100 columns or $COLUMNS.

      kubectl edgefolio status                    # all of the namespace

      kubectl edgefolio status fashion --watch    # one, until Ctrl-C

      kubectl edgefolio status -A --json          # everything, for programs
    """
    if name is not None and all_namespaces:
        raise UserError(
            "a name is looked for in one namespace.",
            field="-A",
            remedy="Leave out -A or the name; -n names a namespace.",
        )
    cluster = Cluster(kubeconfig=kubeconfig, context=context, namespace=namespace)
    query = _Query(cluster, name=name, all_namespaces=all_namespaces)
    if watch:
        _watch(query, interval=interval, as_json=as_json)
    elif as_json:
        typer.echo(json.dumps(status_document(query.fetched(), now=cluster.now()), indent=2))
    else:
        console().print(query.rendered(query.fetched()))


class _Query:
    """The portfolios that the options select."""

    def __init__(self, cluster: Cluster, *, name: str | None, all_namespaces: bool) -> None:
        self.cluster = cluster
        self._name = name
        self._namespace = None if all_namespaces else cluster.namespace

    def fetched(self) -> tuple[PortfolioView, ...]:
        views = portfolio_views(self.cluster.portfolios(self._namespace), self.cluster.endpoints(self._namespace))
        if self._name is None:
            return views
        return (portfolio_called(self._name, views, namespace=self.cluster.namespace),)

    def rendered(self, views: tuple[PortfolioView, ...]) -> RenderableType:
        return status_trees(views, now=self.cluster.now(), with_namespace=self._namespace is None)


def _watch(query: _Query, *, interval: float, as_json: bool) -> None:
    """Redraw in place on a terminal, print each change elsewhere; failed requests are shown and retried."""
    views = query.fetched()
    with until_interrupted() as interrupted:
        if sys.stdout.isatty() and not as_json:
            _live(query, views, pause=lambda: interrupted.wait(interval))
        else:
            _lines(query, views, pause=lambda: interrupted.wait(interval), as_json=as_json)


def _live(query: _Query, views: tuple[PortfolioView, ...], *, pause: Callable[[], bool]) -> None:
    with Live(query.rendered(views), console=console(), auto_refresh=False, vertical_overflow="visible") as live:
        while not pause():
            trouble = None
            try:
                views = query.fetched()
            except ApiRequestFailed as error:
                trouble = Text(f"This is the last that was seen. {error}", style="bold red")
            picture = query.rendered(views)
            live.update(picture if trouble is None else Group(picture, trouble), refresh=True)


def _lines(query: _Query, views: tuple[PortfolioView, ...], *, pause: Callable[[], bool], as_json: bool) -> None:
    shown: object = None
    said = ""
    while True:
        document = status_document(views, now=query.cluster.now())
        if (facts := _without_ages(document)) != shown:
            shown = facts
            if as_json:
                typer.echo(json.dumps(document))
            else:
                console().print(query.rendered(views))
        if pause():
            return
        try:
            views, said = query.fetched(), ""
        except ApiRequestFailed as error:
            if str(error) != said:
                said = str(error)
                say(f"error: {said}", error=True)


def _without_ages(document: Any) -> Any:
    """``document`` without ages, which change by time alone."""
    if isinstance(document, dict):
        return {key: _without_ages(value) for key, value in document.items() if key != "ageSeconds"}
    if isinstance(document, list):
        return [_without_ages(value) for value in document]
    return document
