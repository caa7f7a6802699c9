"""Look-up of portfolios and endpoints by the name that a user typed, with suggestions for an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from edgefolio.errors import UserError
from edgefolio_kubectl.views import EndpointView, PortfolioView


def portfolio_called(name: str, portfolios: Sequence[PortfolioView], *, namespace: str) -> PortfolioView:
    """The portfolio ``name``. Raises :class:`UserError`."""
    found = next((entry for entry in portfolios if entry.name == name and entry.exists), None)
    if found is None:
        raise UserError(
            f"namespace {namespace} has no such ModelPortfolio.",
            field="NAME",
            value=name,
            remedy=nearest(name, [entry.name for entry in portfolios if entry.exists]),
        )
    return found


def endpoint_called(
    name: str, portfolios: Sequence[PortfolioView], *, namespace: str
) -> tuple[PortfolioView, EndpointView]:
    """The endpoint ``name``, or the only one on the node ``name``, with its portfolio. Raises :class:`UserError`."""
    pairs = [(portfolio, endpoint) for portfolio in portfolios for endpoint in portfolio.endpoints]
    found = [pair for pair in pairs if pair[1].name == name] or [pair for pair in pairs if pair[1].node == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"the node has {len(found)} endpoints.",
            field="ENDPOINT",
            value=name,
            remedy=nearest(name, [endpoint.name for _, endpoint in found]),
        )
    names = {endpoint.name for _, endpoint in pairs} | {endpoint.node for _, endpoint in pairs if endpoint.node}
    raise UserError(
        f"namespace {namespace} has no such ModelEndpoint, nor one on such a node.",
        field="ENDPOINT",
        value=name,
        remedy=nearest(name, sorted(names)),
    )


def nearest(name: str, known: Sequence[str]) -> str:
    """The remedy for an unknown name: up to ten similar names, or the first ten."""
    if not known:
        return "There is none at all."
    close = difflib.get_close_matches(name, known, n=10, cutoff=0.4) or sorted(known)[:10]
    return f"Name one of: {', '.join(close)}{', ...' if len(known) > len(close) else ''}"
