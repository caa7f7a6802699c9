"""``kubectl edgefolio pin``, ``unpin``, ``pause``, ``resume``, ``make``: annotations, the same as written by hand."""

from __future__ import annotations

from datetime import UTC, datetime

import typer

from edgefolio.commands.terminal import say
from edgefolio.errors import UserError
from edgefolio.specification.annotations import MAKE_REQUESTED, PAUSED, PIN_VARIANT, is_paused
from edgefolio_kubectl.client import ApiRequestFailed, Cluster, NotFound
from edgefolio_kubectl.commands import options
from edgefolio_kubectl.object_lookup import endpoint_called, nearest, portfolio_called
from edgefolio_kubectl.views import EndpointView, PortfolioView, portfolio_views


def pin(
    endpoint: str = options.ENDPOINT,
    variant: str = typer.Argument(..., metavar="VARIANT", help="A variant of the revision that the endpoint serves."),
    namespace: str | None = options.NAMESPACE,
    context: str | None = options.CONTEXT,
    kubeconfig: str | None = options.KUBECONFIG,
) -> None:
    """Make an endpoint serve one variant whatever the figures say, until `unpin`.

    It annotates the pod, so it lasts as long as the pod. All checks stay: bytes are verified, and a variant that
    does not fit into memory or does not answer is not taken.

      kubectl edgefolio pin edge-1 dense
    """
    cluster = Cluster(kubeconfig=kubeconfig, context=context, namespace=namespace)
    portfolio, found = _endpoint(cluster, endpoint)
    revision = portfolio.revision(found.revision)
    known = [entry.name for entry in revision.variants] if revision is not None else []
    if variant not in known:
        split = next(
            (entry for entry in (revision.splits if revision is not None else ()) if entry.name == variant), None
        )
        if split is not None:
            problem = f"it is a split over {split.workers} nodes, which no agent of this release serves."
        else:
            problem = f"revision {found.revision} has no such variant."
        raise UserError(
            problem if known else "no revision is published for it yet.",
            field="VARIANT",
            value=variant,
            remedy=nearest(variant, known) if known else "Wait for it: kubectl edgefolio status.",
        )
    _annotate(cluster, found, PIN_VARIANT, variant)
    say(f"{found.name}: pinned to {variant}. Undo: kubectl edgefolio unpin {found.name}")
    say(f"For longer than this pod lives: kubectl annotate node {found.node} {PIN_VARIANT}={variant}")


def unpin(
    endpoint: str = options.ENDPOINT,
    namespace: str | None = options.NAMESPACE,
    context: str | None = options.CONTEXT,
    kubeconfig: str | None = options.KUBECONFIG,
) -> None:
    """Let an endpoint change its variant again.

    A pin on the node stays, and is named.

      kubectl edgefolio unpin edge-1
    """
    cluster = Cluster(kubeconfig=kubeconfig, context=context, namespace=namespace)
    _, found = _endpoint(cluster, endpoint)
    _annotate(cluster, found, PIN_VARIANT, None)
    say(f"{found.name}: its pod pins no variant any more.")
    value = _of_node(cluster, found, PIN_VARIANT)
    if value is not None:
        say(f"Its node still pins {value}. Undo: kubectl annotate node {found.node} {PIN_VARIANT}-")


def pause(
    endpoint: str = options.ENDPOINT,
    namespace: str | None = options.NAMESPACE,
    context: str | None = options.CONTEXT,
    kubeconfig: str | None = options.KUBECONFIG,
) -> None:
    """Leave an endpoint as it is, until `resume`; it is still repaired when it serves nothing.

    It annotates the pod, so it lasts as long as the pod.

      kubectl edgefolio pause edge-1
    """
    cluster = Cluster(kubeconfig=kubeconfig, context=context, namespace=namespace)
    _, found = _endpoint(cluster, endpoint)
    _annotate(cluster, found, PAUSED, "true")
    say(f"{found.name}: paused. Undo: kubectl edgefolio resume {found.name}")
    say(f"For longer than this pod lives: kubectl annotate node {found.node} {PAUSED}=true")


def resume(
    endpoint: str = options.ENDPOINT,
    namespace: str | None = options.NAMESPACE,
    context: str | None = options.CONTEXT,
    kubeconfig: str | None = options.KUBECONFIG,
) -> None:
    """Resume switching at a paused endpoint.

    A pause by its node or the portfolio's policy stays and is named.

      kubectl edgefolio resume edge-1
    """
    cluster = Cluster(kubeconfig=kubeconfig, context=context, namespace=namespace)
    portfolio, found = _endpoint(cluster, endpoint)
    _annotate(cluster, found, PAUSED, None)
    say(f"{found.name}: its pod does not pause it any more.")
    if is_paused(_of_node(cluster, found, PAUSED)):
        say(f"Its node still does. Undo: kubectl annotate node {found.node} {PAUSED}-")
    if (portfolio.spec.get("switching") or {}).get("policy") == "Paused":
        say(f"The policy of {portfolio.name} is Paused: nothing is kept until spec.switching.policy is Auto.")


def make(
    name: str = typer.Argument(..., metavar="NAME", help="A ModelPortfolio."),
    namespace: str | None = options.NAMESPACE,
    context: str | None = options.CONTEXT,
    kubeconfig: str | None = options.KUBECONFIG,
) -> None:
    """Remake a portfolio whose specification has not changed, for instance after its data did.

    What is published serves on until the new revision is there. A portfolio without spec.source makes nothing: it is
    asked to look into its repository at once.

      kubectl edgefolio make fashion
    """
    cluster = Cluster(kubeconfig=kubeconfig, context=context, namespace=namespace)
    views = portfolio_views(cluster.portfolios(cluster.namespace), ())
    portfolio = portfolio_called(name, views, namespace=cluster.namespace)
    now = datetime.fromtimestamp(cluster.now(), tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    cluster.annotate_portfolio(name, {MAKE_REQUESTED: now})
    asked = "a pruning run" if portfolio.spec.get("source") else "a look into its repository"
    say(f"{name}: {asked} is asked for ({MAKE_REQUESTED}={now}).")
    say(f"Look: kubectl edgefolio status {name} --watch")


def _endpoint(cluster: Cluster, name: str) -> tuple[PortfolioView, EndpointView]:
    views = portfolio_views(cluster.portfolios(cluster.namespace), cluster.endpoints(cluster.namespace))
    return endpoint_called(name, views, namespace=cluster.namespace)


def _annotate(cluster: Cluster, endpoint: EndpointView, key: str, value: str | None) -> None:
    pod = endpoint.name if endpoint.spec is None else endpoint.spec.pod_name
    try:
        cluster.annotate_pod(pod, {key: value})
    except NotFound as error:
        raise UserError(
            "its pod is gone.", field="ENDPOINT", value=endpoint.name, remedy="Look again: kubectl edgefolio status."
        ) from error


def _of_node(cluster: Cluster, endpoint: EndpointView, key: str) -> str | None:
    """The node's annotation; ``None`` also for a user who may not read nodes."""
    if endpoint.node is None:
        return None
    try:
        value = (cluster.node(endpoint.node)["metadata"].get("annotations") or {}).get(key)
    except (NotFound, ApiRequestFailed):
        return None
    return None if value is None else str(value)
