"""What Prometheus is told of a portfolio, and that it is taken back."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from reconciled_site import Site

from edgefolio_operator.cluster_state.snapshot import PortfolioSnapshot
from edgefolio_operator.endpoints.memory_reservations import Reservations
from edgefolio_operator.metrics import Metrics
from edgefolio_operator.reconcilers.metrics_recorder import MetricsRecorder

KEY = ("models", "digits")


def test_series_come_and_go_with_what_they_are_about() -> None:
    registry = CollectorRegistry()
    measurements = MetricsRecorder(Metrics(registry))
    site = Site()

    def cycle() -> str:
        before = Reservations.of(site.promises).promises
        plan = site.cycle()
        snapshot = PortfolioSnapshot(portfolio=site.portfolio, endpoints=list(site.endpoints.values()))
        measurements.record(KEY, snapshot, plan, before=before)
        return generate_latest(registry).decode()

    cycle()
    site.served()
    text = cycle()
    variant = 'edgefolio_endpoint_variant_info{endpoint="digits-edge-1",namespace="models",node="edge-1",'
    assert f'{variant}portfolio="digits",revision="1",variant="dense"}} 1.0' in text
    assert 'edgefolio_endpoints{namespace="models",portfolio="digits",state="meeting_objectives"} 2.0' in text
    assert 'edgefolio_objective_violated{endpoint="digits-edge-2",namespace="models",portfolio="digits"} 0.0' in text
    ready = 'edgefolio_portfolio_condition{namespace="models",portfolio="digits",status="%s",type="Ready"} 1.0'
    assert ready % "True" in text
    assert 'edgefolio_decisions_total{action="Hold",reason="ObjectivesMet"} 2.0' in text
    # The same again is no other decision.
    assert 'edgefolio_decisions_total{action="Hold",reason="ObjectivesMet"} 2.0' in cycle()

    counted = _value(text, "edgefolio_switch_duration_seconds_count")
    for _ in range(5):
        site.report("edge-1", slowdown=4.0, met=False, obey=False)
        site.report("edge-2")
        cycle()
    assert site.targets()["edge-1"] == "small"
    site.now += 6
    site.report("edge-1")
    text = cycle()
    assert _value(text, "edgefolio_switch_duration_seconds_count") == counted + 1
    assert _value(text, "edgefolio_switch_duration_seconds_sum") >= 6
    assert f'{variant}portfolio="digits",revision="1",variant="small"}} 1.0' in text
    assert f'{variant}portfolio="digits",revision="1",variant="dense"}} 1.0' not in text

    site.pods.pop(0)
    text = cycle()
    assert "digits-edge-1" not in text
    measurements.forget(KEY)
    text = generate_latest(registry).decode()
    assert 'portfolio="digits"' not in text
    assert ready % "True" not in text


def test_when_a_collection_was_heard_is_told_while_it_is_followed() -> None:
    registry = CollectorRegistry()
    measurements = MetricsRecorder(Metrics(registry))
    measurements.record_silences({"/api/v1/nodes": 3.0, "/api/v1/pods?app=x": 0.0})
    text = generate_latest(registry).decode()
    assert 'edgefolio_mirror_heard_timestamp_seconds{collection="/api/v1/pods?app=x"}' in text
    measurements.record_silences({"/api/v1/nodes": 3.0})
    assert "app=x" not in generate_latest(registry).decode()


def _value(text: str, name: str) -> float:
    (line,) = (line for line in text.splitlines() if line.startswith(f"{name} "))
    return float(line.split()[1])
