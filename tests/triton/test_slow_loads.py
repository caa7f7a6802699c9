"""A load that takes longer than it should, as on a machine whose processors others keep busy: it is waited for."""

from __future__ import annotations

from typing import Any

import psutil
import pytest
from triton_portfolios import MODEL, images, revealed_tag
from triton_site import Site

from edgefolio_edge.triton.processes import stub_of_version
from edgefolio_edge.triton.switcher import Switcher


class Impatient:
    """The site's control client, whose loads give up before any load can have ended."""

    def __init__(self, site: Site) -> None:
        self._control = site.control
        self.given_up = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._control, name)

    def load(self, model: str, configuration: Any, *, seconds: float) -> None:
        self.given_up += 1
        self._control.load(model, configuration, seconds=0.05)


def switcher_of(site: Site, control: Any, *, stopped: bool = False) -> Switcher:
    endpoint = site.server.endpoint()

    def is_loading(version: int, seconds: float) -> bool:
        stub = stub_of_version(site.server.identity, version)
        if stopped and stub is not None:
            psutil.Process(stub.pid).suspend()
        return endpoint.is_loading(version, seconds)

    return Switcher(control, site.store, end_load=endpoint.end_backend_of, is_loading=is_loading)


def test_a_load_that_goes_on_is_waited_for(site: Site) -> None:
    site.serve(1)
    impatient: Any = Impatient(site)
    outcome = switcher_of(site, impatient).switch(site.placement(3), previous=site.placement(1))
    assert outcome.succeeded, outcome
    assert impatient.given_up == 1
    assert outcome.load_milliseconds > 50
    assert revealed_tag(site.control.infer(MODEL, {"image": images()}).outputs["logits"]) == 3
    # Downwards, too: the version before is unloaded first.
    assert switcher_of(site, impatient).switch(site.placement(2), previous=site.placement(3)).succeeded


@pytest.mark.parametrize("seconds", [0.0, 1e-9])
def test_one_that_had_its_time_of_a_processor_is_not_waited_for(site: Site, seconds: float) -> None:
    site.serve(2)
    endpoint = site.server.endpoint()
    stub = stub_of_version(site.server.identity, 102)
    assert stub is not None
    used = stub.processor_seconds()
    assert used is not None
    assert used > 0
    assert not endpoint.is_loading(102, seconds)
    # Nothing is asked of it, so it makes no progress either.
    assert not endpoint.is_loading(102, used + 100)
    assert not endpoint.is_loading(999, 100)


# Last: a Triton whose load was ended may hang with the next one.
def test_one_that_does_not_is_ended_and_the_old_variant_serves_on(site: Site) -> None:
    site.serve(1)
    server = site.server.identity
    switcher = switcher_of(site, Impatient(site), stopped=True)
    outcome = switcher.switch(site.placement(3), previous=site.placement(1))
    assert not outcome.succeeded
    assert "did not end within 15 s" in str(outcome.cause)
    assert site.server.identity == server
    assert revealed_tag(site.control.infer(MODEL, {"image": images()}, version=101).outputs["logits"]) == 1
