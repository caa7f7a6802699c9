"""A revision with a split: its status lists it, no endpoint is sent to it, and a pin on it says why not."""

from __future__ import annotations

import io

from reconciled_site import Site, published

from edgefolio.commands.terminal import Terminal
from edgefolio.specification.portfolio_status import SplitStatus
from edgefolio_kubectl.display.status_document import status_document
from edgefolio_kubectl.display.status_tree import status_trees
from edgefolio_kubectl.views import portfolio_views

SPLIT = SplitStatus(
    name="split-two",
    rank=3,
    workers=2,
    accuracy_percent="99.5",
    predicted_milliseconds="0.1",
    received_bytes=1024,
    memory_bytes=2**20,
)


def served_site() -> Site:
    site = Site()
    site.cycle()
    site.end_job(published(1).model_copy(update={"splits": (SPLIT,)}))
    site.cycle()
    for name in list(site.endpoints):
        site.report(name.removeprefix("digits-"))
    site.cycle()
    return site


def test_the_status_lists_the_split_and_no_endpoint_is_sent_to_it() -> None:
    site = served_site()
    (revision,) = site.portfolio["status"]["revisions"]
    assert [split["name"] for split in revision["splits"]] == ["split-two"]
    assert "split-two" not in {variant["name"] for variant in revision["variants"]}
    # It would be the most accurate and the fastest.
    targets = {endpoint["spec"]["targetVariant"] for endpoint in site.endpoints.values()}
    assert targets == {"dense"}


def test_a_pin_on_a_split_is_not_followed_and_says_why() -> None:
    site = served_site()
    site.pods[0]["metadata"]["annotations"]["edgefolio.dev/pin-variant"] = "split-two"
    plan = site.cycle()
    assert {endpoint["spec"]["targetVariant"] for endpoint in site.endpoints.values()} == {"dense"}
    assert "is a split over several nodes" in str(plan)


def test_kubectl_lists_the_split() -> None:
    site = served_site()
    views = portfolio_views([site.portfolio], site.endpoints.values())
    file = io.StringIO()
    Terminal(width=120, file=file).print(status_trees(views, now=site.now, with_namespace=False))
    (line,) = [line for line in file.getvalue().splitlines() if "split-two" in line]
    assert "99.50 %" in line
    assert "a split over 2 nodes: no agent serves it" in line
    document = status_document(views, now=site.now)["portfolios"][0]
    assert document["revisions"][0]["splits"][0]["predictedMilliseconds"] == 0.1
