"""Pins and pauses by annotation: the nearest level counts, and what cannot be read is said."""

from __future__ import annotations

import pytest

from edgefolio_operator.endpoints.objectives import Issue, Level
from edgefolio_operator.endpoints.override_annotations import is_paused, pinned_variant

PIN, PAUSED = "edgefolio.dev/pin-variant", "edgefolio.dev/paused"
KNOWN = ("small", "dense")


def levels(pod: dict[str, str], node: dict[str, str]) -> list[tuple[Level, dict[str, str]]]:
    return [(Level.POD, pod), (Level.NODE, node)]


@pytest.mark.parametrize(
    ("pod", "node", "variant", "faulty"),
    [
        ({}, {}, None, []),
        ({PIN: "small"}, {PIN: "dense"}, "small", []),
        ({}, {PIN: " dense "}, "dense", []),
        ({PIN: "huge"}, {PIN: "dense"}, "dense", [Level.POD]),
        ({PIN: ""}, {}, None, [Level.POD]),
        ({PIN: "huge"}, {PIN: "x" * 1000}, None, [Level.POD, Level.NODE]),
    ],
)
def test_pins(pod: dict[str, str], node: dict[str, str], variant: str | None, faulty: list[Level]) -> None:
    issues: list[Issue] = []
    assert pinned_variant(levels(pod, node), known=KNOWN, issues=issues) == variant
    assert [issue.level for issue in issues] == faulty
    for issue in issues:
        assert (issue.key, issue.reason) == (PIN, "UnknownVariant")
        assert "is not one of small, dense" in issue.message
        assert len(issue.message) < 200


@pytest.mark.parametrize(
    ("pod", "node", "paused", "faulty"),
    [
        ({}, {}, False, False),
        ({PAUSED: "true"}, {}, True, False),
        ({PAUSED: "Yes"}, {}, True, False),
        ({PAUSED: "1"}, {PAUSED: "false"}, True, False),
        ({PAUSED: "false"}, {PAUSED: "true"}, False, False),
        ({PAUSED: ""}, {PAUSED: "true"}, False, False),
        ({}, {PAUSED: "TRUE"}, True, False),
        ({PAUSED: "until friday"}, {}, True, True),
    ],
)
def test_pauses(pod: dict[str, str], node: dict[str, str], paused: bool, faulty: bool) -> None:
    issues: list[Issue] = []
    assert is_paused(levels(pod, node), issues=issues) is paused
    assert [issue.reason for issue in issues] == (["MalformedPause"] if faulty else [])
