"""Reading metrics.k8s.io: quantities, durations, ages; nonsense is left out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefolio.specification.conditions import time_text
from edgefolio.specification.validation.base import quantity
from edgefolio_operator.cluster_state.resource_usage import Sample, duration, node_samples, pod_samples

NOW = 1_800_000_000.0

# As metrics-server 0.8 writes them.
NODE = {
    "metadata": {"name": "edge-1", "labels": {"kubernetes.io/hostname": "edge-1"}},
    "timestamp": time_text(NOW - 12),
    "window": "15.034s",
    "usage": {"cpu": "123456789n", "memory": "1536Ki"},
}
POD = {
    "metadata": {"name": "digits-x", "namespace": "models", "labels": {"edgefolio.dev/endpoint": "digits"}},
    "timestamp": time_text(NOW - 9),
    "window": "14.9s",
    "containers": [
        {"name": "agent", "usage": {"cpu": "10m", "memory": "100Ki"}},
        {"name": "triton", "usage": {"cpu": "1", "memory": "2Mi"}},
    ],
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0.0),
        ("123456789n", 0.123456789),
        ("5u", 5e-6),
        ("250m", 0.25),
        ("2", 2.0),
        ("1.5", 1.5),
        ("1k", 1000.0),
        ("1536Ki", 1536 * 1024.0),
        ("3Gi", 3 * 2.0**30),
        ("1e3", 1000.0),
        ("1E", 1e18),
        ("12E-1", 1.2),
    ],
)
def test_quantities(text: str, value: float) -> None:
    assert float(quantity(text) or 0) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "-1", "m", "1x", "1 Ki", "NaN", "1e999", None, 5, [], "٣"])
def test_what_is_no_quantity(text: Any) -> None:
    assert quantity(text) is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("15.034s", 15.034), ("1m0s", 60), ("1m30.5s", 90.5), ("2h", 7200), ("500ms", 0.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "15", "s", "1m x", "-3s", None, 3])
def test_what_is_no_duration(text: Any) -> None:
    assert duration(text) is None


def test_a_node_s_sample_keeps_its_time_and_window() -> None:
    sample = node_samples([NODE])["edge-1"]
    assert (sample.time, sample.window_seconds, sample.memory_bytes) == (NOW - 12, 15.034, 1536 * 1024)
    assert sample.cpu_cores == pytest.approx(0.123456789)


def test_a_pod_s_server_is_told_from_the_agent() -> None:
    sample = pod_samples([POD])["models", "digits-x"]
    assert sample.total.cpu_cores == pytest.approx(1.01)
    assert sample.total.memory_bytes == 2 * 2**20 + 100 * 1024
    assert sample.server_bytes == 2 * 2**20
    renamed = {**POD, "containers": [POD["containers"][0], {**POD["containers"][1], "name": "inference"}]}
    assert pod_samples([renamed])["models", "digits-x"].server_bytes == 2 * 2**20
    crowd = {**renamed, "containers": [*renamed["containers"], {**POD["containers"][1], "name": "proxy"}]}
    assert pod_samples([crowd])["models", "digits-x"].server_bytes is None


@pytest.mark.parametrize(
    "change",
    [
        {"usage": {}},
        {"usage": {"cpu": "many", "memory": "1Ki"}},
        {"usage": None},
        {"timestamp": "yesterday"},
        {"timestamp": None},
        {"metadata": {}},
    ],
)
def test_an_entry_that_makes_no_sense_is_left_out(change: dict[str, Any]) -> None:
    other = {**NODE, "metadata": {"name": "edge-2"}}
    assert set(node_samples([{**NODE, **change}, other])) == {"edge-2"}


def test_a_pod_without_containers_says_nothing() -> None:
    assert pod_samples([{**POD, "containers": []}, {"metadata": {"name": "x", "namespace": "y"}}]) == {}


def sample(age: float, window: float = 15.0) -> Sample:
    return Sample(cpu_cores=1, memory_bytes=1, time=NOW - age, window_seconds=window)


def test_a_sample_grows_old() -> None:
    assert sample(60).is_fresh(now=NOW, stale_after=60)
    assert not sample(61).is_fresh(now=NOW, stale_after=60)
    # A source that samples once a minute is believed for three of its windows.
    assert sample(179, window=60).is_fresh(now=NOW, stale_after=60)
    assert not sample(181, window=60).is_fresh(now=NOW, stale_after=60)
    # But nobody is believed for ever, and the future is a wrong clock.
    assert not sample(301, window=1e9).is_fresh(now=NOW, stale_after=60)
    assert not sample(-61).is_fresh(now=NOW, stale_after=60)
    assert not sample(float("nan")).is_fresh(now=NOW, stale_after=60)


documents: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["1", "5m", "10Ki", "15s"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["metadata", "name", "namespace", "usage", "cpu", "memory", "containers", "timestamp", "window"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(items=st.lists(documents, max_size=3))
def test_reading_is_total(items: list[Any]) -> None:
    for found in (node_samples(items), pod_samples(items)):
        assert len(found) <= len(items)
