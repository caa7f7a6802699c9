"""Known vulnerabilities by version: the table, and what it says of the versions that are met."""

from __future__ import annotations

import pytest

from edgefolio.components import (
    COMPONENTS,
    TRITON,
    TRITON_IMAGE,
    WHEEL_TRITON,
    release_of_image,
    triton_release,
    triton_warning,
    version_numbers,
)
from edgefolio.specification.conditions import truncated


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("2.51.0", "24.10"),
        ("2.53.0", "24.12"),
        ("2.54.0", "25.01"),
        ("2.59.0", "25.06"),
        ("2.59.1", "25.07"),
        ("2.60.0", "25.08"),
        ("2.66.0", "26.02"),
        ("2.73.0", "26.09"),
        ("2", ""),
        ("3.1.0", ""),
        ("dev", ""),
        ("", ""),
    ],
)
def test_a_server_says_its_version_and_nvidia_counts_releases(version: str, release: str) -> None:
    assert triton_release(version) == release


@pytest.mark.parametrize(
    ("image", "release"),
    [
        ("nvcr.io/nvidia/tritonserver:24.10-py3", "24.10"),
        ("mirror.example.com:5000/a/tritonserver:26.09-py3-min@sha256:00", "26.09"),
        ("ghcr.io/edgefolio/triton:0.1.0", ""),
        ("tritonserver", ""),
        ("nvcr.io/nvidia/tritonserver@sha256:00", ""),
    ],
)
def test_an_image_of_nvidia_names_its_release(image: str, release: str) -> None:
    assert release_of_image(image) == release


def test_the_default_image_has_no_known_vulnerability_and_the_wheel_has() -> None:
    assert release_of_image(TRITON_IMAGE)
    assert triton_warning(release_of_image(TRITON_IMAGE)) is None
    warning = triton_warning(triton_release(WHEEL_TRITON))
    assert warning is not None
    for name in ("CVE-2025-23310", "CVE-2025-23311", "CVE-2025-23319", "CVE-2025-23320", "CVE-2025-23334"):
        assert name in warning
    assert warning == truncated(warning), "a condition holds it whole"
    assert "26.07" in warning


@pytest.mark.parametrize(("release", "left"), [("25.06", True), ("25.07", True), ("26.06", True), ("26.07", False)])
def test_later_releases_are_said_to_be_mended_where_they_are(release: str, left: bool) -> None:
    warning = triton_warning(release)
    assert (warning is not None) is left
    assert ("CVE-2025-23310" in (warning or "")) is (release == "25.06")


def test_nothing_is_said_of_a_version_that_nobody_knows() -> None:
    assert triton_warning("") is None
    assert version_numbers("99999999999999999999.1") == ()


def test_advisories_stand_in_order_and_name_each_vulnerability_once() -> None:
    for component in COMPONENTS:
        versions = [version_numbers(each.mended) for each in component.advisories]
        assert versions == sorted(set(versions))
    names = [name for component in COMPONENTS for each in component.advisories for name in each.vulnerabilities]
    assert len(names) == len(set(names))
    assert TRITON in COMPONENTS
