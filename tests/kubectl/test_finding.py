"""Names that users type, and words for what foreign programs wrote."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import pytest
from reconciled_site import Site

from edgefolio.errors import UserError
from edgefolio_kubectl.display.formatting import age, span
from edgefolio_kubectl.object_lookup import endpoint_called, nearest, portfolio_called
from edgefolio_kubectl.views import PortfolioView, portfolio_views


@pytest.fixture
def portfolios() -> tuple[PortfolioView, ...]:
    site = Site()
    site.cycle()
    site.cycle(0)  # its pods are of the DaemonSet now
    return portfolio_views([site.portfolio], site.endpoints.values())


def test_an_endpoint_is_known_by_its_name_or_its_node(portfolios: tuple[PortfolioView, ...]) -> None:
    for name in ("digits-edge-2", "edge-2"):
        portfolio, endpoint = endpoint_called(name, portfolios, namespace="models")
        assert (portfolio.name, endpoint.name) == ("digits", "digits-edge-2")


def test_unknown_names_are_answered_with_near_ones(portfolios: tuple[PortfolioView, ...]) -> None:
    with pytest.raises(UserError, match="Name one of: digits") as caught:
        portfolio_called("digit", portfolios, namespace="models")
    assert caught.value.exit_code == 2
    with pytest.raises(UserError, match=r"Name one of: digits-edge-\d"):
        endpoint_called("digits-edge-9", portfolios, namespace="models")
    assert nearest("x", ()) == "There is none at all."


def test_a_node_with_several_endpoints_is_not_guessed(portfolios: tuple[PortfolioView, ...]) -> None:
    other = portfolio_views(
        [],
        [
            {
                "metadata": {"name": "letters-1", "namespace": "models"},
                "spec": {
                    "portfolioRef": {"name": "letters"},
                    "podName": "letters-1",
                    "nodeName": "edge-1",
                    "modelName": "letters",
                    "repositoryURI": "s3://bucket/portfolios",
                },
            }
        ],
    )
    with pytest.raises(UserError, match="the node has 2 endpoints") as caught:
        endpoint_called("edge-1", (*portfolios, *other), namespace="models")
    assert "letters-1" in caught.value.remedy
    assert "digits-edge-1" in caught.value.remedy


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_ages_and_foreign_text() -> None:
    assert age("1970-01-01T00:00:10Z", now=40) == "30 s ago"
    assert age(None, now=40) == "at an unknown time"


def test_kubectl_finds_the_program() -> None:
    """A program ``kubectl-edgefolio`` on the PATH is what ``kubectl edgefolio`` runs."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["kubectl-edgefolio"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert any(requirement.startswith("kubernetes") for requirement in project["optional-dependencies"]["kubectl"])
