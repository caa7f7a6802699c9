"""What an agent remembers of failed switches."""

from __future__ import annotations

from triton_portfolios import draft, revealing_model

from edgefolio_edge.agent.failures import SwitchFailures
from edgefolio_edge.triton.placement import Placement

MANIFEST = draft([revealing_model(1), revealing_model(2)])
FIRST, SECOND = (Placement(manifest=MANIFEST, variant=variant) for variant in MANIFEST.variants)


def test_a_revision_has_failed_when_each_of_its_variants_has_and_none_answered_since() -> None:
    failures = SwitchFailures()
    assert not failures.have_all_failed(FIRST)
    failures.verified(FIRST, of=MANIFEST)
    assert not failures.have_all_failed(SECOND)
    assert failures.have_all_failed(FIRST)
    failures.begin_revision()
    assert not failures.have_all_failed(SECOND)


def test_what_served_comes_back_once() -> None:
    failures = SwitchFailures()
    failures.failed_beside(FIRST)
    failures.failed_beside(None)
    assert failures.take_served_before() == FIRST
    assert failures.take_served_before() is None
    failures.failed_beside(FIRST)
    failures.succeeded()
    assert failures.served_before is None


def test_a_shortage_pauses_switches_and_is_said_once() -> None:
    failures = SwitchFailures()
    assert failures.may_switch()
    assert failures.short(serves=True)
    assert not failures.may_switch()
    assert not failures.short(serves=True)
    failures.succeeded()
    assert failures.short(serves=True)
