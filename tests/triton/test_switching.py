"""Switches under load, and clients that notice nothing."""

from __future__ import annotations

import http.client
import json
import time
from itertools import cycle, pairwise
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from triton_load import Clients, failed, longest_gap, wrong
from triton_portfolios import MODEL, images, revealed_tag
from triton_site import Site
from tritonclient.utils import InferenceServerException

from edgefolio_edge.observation.traffic import TrafficObserver
from edgefolio_edge.triton.client import ControlError, TritonControl

REQUESTS = 5000
SWITCHES = 10
TAGS = {f"variant-{rank}": rank for rank in (1, 2, 3, 4)}


def test_five_thousand_requests_over_ten_switches(site: Site, record_property: Any) -> None:
    site.serve(1)
    order = cycle([2, 4, 1, 3])
    switches: list[tuple[float, float, int]] = []
    with Clients(site.server.grpc_endpoint, site.server.http_endpoint, model=MODEL) as clients:
        for number in range(SWITCHES):
            clients.wait_for(REQUESTS * number // SWITCHES)
            target, began = site.placement(next(order)), time.perf_counter()
            outcome = site.switcher.switch(target)
            assert outcome.succeeded, outcome.cause
            switches.append((began, time.perf_counter(), target.version))
            clients.wait_for(len(clients.requests()) + 20)
        clients.wait_for(REQUESTS)
    requests = clients.requests()
    assert len(requests) >= REQUESTS
    assert failed(requests) == []
    assert wrong(requests, site.manifest, TAGS) == []
    # A request that was sent after a switch returned never reaches the variant before.
    end = float("inf")
    for (_, since, version), (until, _, _) in pairwise([*switches, (end, end, 0)]):
        between = {entry.version for entry in requests if since < entry.sent and entry.answered < until}
        assert between == {version}
    assert {entry.protocol for entry in requests} == {"grpc", "http"}
    assert {entry.tag for entry in requests} == {1, 2, 3, 4}
    gap = longest_gap(requests)
    record_property("requests", len(requests))
    record_property("longest_gap_milliseconds", round(1e3 * gap, 1))
    print(f"{len(requests)} requests, longest time without an answer {1e3 * gap:.0f} ms")


def test_plain_kserve_rest_and_triton_clients_work_unchanged(site: Site) -> None:
    site.serve(3)
    values = images(2)
    body = {
        "inputs": [{"name": "image", "shape": list(values.shape), "datatype": "FP32", "data": values.ravel().tolist()}]
    }
    connection = http.client.HTTPConnection(site.server.http_endpoint, timeout=10)
    for path in (f"/v2/models/{MODEL}/infer", f"/v2/models/{MODEL}/versions/103/infer"):
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        assert response.status == 200
        assert answer["model_version"] == "103"
        (output,) = answer["outputs"]
        assert output["shape"] == [2, 4]
        assert revealed_tag(np.array(output["data"]).reshape(2, 4)) == 3
    for path in ("/v2/health/live", "/v2/health/ready", f"/v2/models/{MODEL}/ready", f"/v2/models/{MODEL}"):
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        assert response.status == 200, path
    connection.close()
    for module, endpoint in ((triton_grpc, site.server.grpc_endpoint), (triton_http, site.server.http_endpoint)):
        client = module.InferenceServerClient(endpoint)
        tensor = module.InferInput("image", list(values.shape), "FP32")
        tensor.set_data_from_numpy(values)
        wanted = [module.InferRequestedOutput("logits")]
        assert revealed_tag(client.infer(MODEL, [tensor], outputs=wanted).as_numpy("logits")) == 3
        client.close()


def test_a_bad_request_harms_nobody_else(site: Site) -> None:
    site.serve(2)
    client = triton_grpc.InferenceServerClient(site.server.grpc_endpoint)
    values = np.zeros((1, 1, 5, 5), np.float32)
    tensor = triton_grpc.InferInput("image", list(values.shape), "FP32")
    tensor.set_data_from_numpy(values)
    with pytest.raises(InferenceServerException, match="shape"):
        client.infer(MODEL, [tensor])
    client.close()
    assert site.switcher.canary(site.placement(2)) is None


def test_control_is_refused_without_the_key_over_grpc(site: Site) -> None:
    site.serve(1)
    client = triton_grpc.InferenceServerClient(site.server.grpc_endpoint)
    forbidden = [
        lambda: client.load_model(MODEL),
        lambda: client.unload_model(MODEL),
        client.get_model_repository_index,
        lambda: client.get_model_config(MODEL),
        client.get_system_shared_memory_status,
        lambda: client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}),
        lambda: client.update_log_settings({"log_verbose_level": 1}),
    ]
    for call in forbidden:
        with pytest.raises(InferenceServerException, match="restricted"):
            call()
    client.close()
    wrong_key = TritonControl(site.server.grpc_endpoint, key=type(site.server.key)(name="edgefolio-key", secret="x"))
    with pytest.raises(ControlError, match="restricted") as refusal:
        wrong_key.unload(MODEL)
    assert not refusal.value.unreachable
    wrong_key.close()
    assert site.switcher.canary(site.placement(1)) is None


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"/v2/repository/models/{MODEL}/load"),
        ("POST", f"/v2/repository/models/{MODEL}/unload"),
        ("POST", "/v2/repository/index"),
        ("GET", f"/v2/models/{MODEL}/config"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/region/x/register"),
        ("POST", "/v2/trace/setting"),
        ("POST", "/v2/logging"),
    ],
)
def test_control_is_not_there_over_http(site: Site, method: str, path: str) -> None:
    connection = http.client.HTTPConnection(site.server.http_endpoint, timeout=10)
    connection.request(method, path, body="{}" if method == "POST" else None)
    response = connection.getresponse()
    response.read()
    connection.close()
    assert response.status == 404


def test_leaving_a_variant_for_a_loaded_standby_starts_no_process(site: Site) -> None:
    site.serve(1)
    outcome = site.switcher.switch(site.placement(4), standby=[site.placement(1)])
    assert outcome.succeeded
    assert site.control.ready_versions(MODEL) == (101, 104)
    assert site.control.infer(MODEL, {"image": images()}).version == 104
    before = {stub.pid for stub in site.server.stubs()}
    assert site.switcher.switch(site.placement(1)).succeeded
    assert site.control.infer(MODEL, {"image": images()}).version == 101
    assert {stub.pid for stub in site.server.stubs()} <= before
    with pytest.raises(ValueError, match="standby"):
        site.switcher.switch(site.placement(1), standby=[site.placement(2)])


def test_windows_count_users_requests_and_not_the_agents(site: Site) -> None:
    site.serve(2)
    observer = TrafficObserver(window_seconds=60)

    def reading(*, successes: int) -> Any:
        """Triton counts a request after it has answered it: the figures once so many are counted."""
        while True:
            (entry,) = (entry for entry in site.control.statistics(MODEL) if entry.version == 102)
            if entry.successes >= successes:
                return entry
            time.sleep(0.05)

    # The switch itself asked once at least.
    time.sleep(1.0)
    began = reading(successes=1)
    observer.add(began, at=0.0)
    for _ in range(7):
        site.control.infer(MODEL, {"image": images(3)})
    before = reading(successes=began.successes + 7)
    observer.add(before, at=2.0)
    observer.take()
    for _ in range(3):
        site.control.infer(MODEL, {"image": images(1)})
    after = reading(successes=before.successes + 3)
    assert observer.exclude(before, after, own_requests=3)
    observer.add(after, at=4.0)
    window = observer.window(now=4.5)
    assert window is not None
    assert (window.requests, window.failures, window.executions) == (7, 0, 7)
    assert window.seconds == 4.0
    assert window.age_seconds == 0.5
    assert 0 < window.mean_compute_milliseconds <= window.mean_total_milliseconds
    latest = observer.latest()
    assert latest is not None
    assert latest.successes == 0
