"""What ``helm test`` runs: does the operator act, and does a portfolio of digits end in a prediction?

It runs in the operator's image with the rights of a service account of its own. What it made it
deletes again, whatever happens. Settings are environment variables, the portfolio is a file beside this one.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
import urllib.request
from pathlib import Path

from cluster_api import PORTFOLIOS, client, holder_of_lease, say

from edgefolio.kubernetes.sync_client import ApiRefused, Object, SyncClient

OPERATOR_SECONDS = 120.0
ANSWER_SECONDS = 60.0
DELETION_SECONDS = 180.0
#: A zero of eight by eight pixels with values 0..16, and what the digits' mean and deviation are about.
ZERO = (
    (0, 0, 5, 13, 9, 1, 0, 0),
    (0, 0, 13, 15, 10, 15, 5, 0),
    (0, 3, 15, 2, 0, 11, 8, 0),
    (0, 4, 12, 0, 0, 8, 8, 0),
    (0, 5, 8, 0, 0, 9, 8, 0),
    (0, 4, 11, 0, 1, 12, 7, 0),
    (0, 2, 14, 5, 10, 12, 0, 0),
    (0, 0, 6, 13, 10, 0, 0, 0),
)
MEAN, DEVIATION = 0.306, 0.376


class Failed(Exception):  # noqa: N818
    """The test failed; the message says at what."""


def operator_acts(api: SyncClient, *, namespace: str) -> None:
    """Wait until somebody holds the operator's lease."""
    end = time.monotonic() + OPERATOR_SECONDS
    while (holder := holder_of_lease(api, namespace=namespace)) is None:
        if time.monotonic() > end:
            raise Failed(f"no operator acts in namespace {namespace}. Look at its pod there, and at the pod's log.")
        time.sleep(2)
    say(f"operator {holder} acts")


class Portfolio:
    """The portfolio of this test."""

    def __init__(self, api: SyncClient, document: Object) -> None:
        self._api = api
        self._document = document
        self._name = document["metadata"]["name"]
        self._collection = PORTFOLIOS.format(namespace=document["metadata"]["namespace"])

    def make(self) -> None:
        """Create it; one that an interrupted test left behind is deleted before."""
        self.delete()
        self._api.request("POST", self._collection, self._document)
        say(f"portfolio {self._name} is created")

    def wait_until_ready(self, *, seconds: float) -> str:
        """Wait for the condition Ready; where clients reach it."""
        end = time.monotonic() + seconds
        told = ""
        while True:
            status = self._api.request("GET", f"{self._collection}/{self._name}").get("status") or {}
            conditions = {entry["type"]: entry for entry in status.get("conditions", ())}
            ready, stalled = conditions.get("Ready", {}), conditions.get("Stalled", {})
            if stalled.get("status") == "True":
                raise Failed(f"the portfolio is stalled: {stalled['reason']}: {stalled['message']}")
            now = _progress(status, ready)
            if now != told:
                say(now)
                told = now
            if ready.get("status") == "True" and (status.get("endpoints") or {}).get("available"):
                return str(status["address"]["url"])
            if time.monotonic() > end:
                raise Failed(f"the portfolio is not Ready after {seconds:.0f} s; last: {told}")
            time.sleep(2)

    def delete(self) -> None:
        """Delete it and, before it goes, what it owns."""
        try:
            options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
            self._api.request("DELETE", f"{self._collection}/{self._name}", options)
            end = time.monotonic() + DELETION_SECONDS
            while time.monotonic() < end:
                self._api.request("GET", f"{self._collection}/{self._name}")
                time.sleep(1)
        except ApiRefused as error:
            if error.status != 404:
                raise
            return
        raise Failed(f"portfolio {self._name} is still being deleted after {DELETION_SECONDS:.0f} s")


def predict(url: str, model: str) -> None:
    """Ask the model for the digit of :data:`ZERO`. The Service may need a moment until it leads to the endpoint."""
    end = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            served = _ask(f"{url}/v2/models/{model}")
            (entry,) = served["inputs"]
            pixels = [(value / 16 - MEAN) / DEVIATION for row in ZERO for value in row]
            sample = {"name": entry["name"], "datatype": entry["datatype"], "shape": [1, 1, 8, 8], "data": pixels}
            answer = _ask(f"{url}/v2/models/{model}/infer", {"inputs": [sample]})
            break
        except (OSError, ValueError) as error:
            if time.monotonic() > end:
                raise Failed(f"{url} does not answer: {error}") from error
            time.sleep(2)
    (output,) = answer["outputs"]
    scores = output["data"]
    if len(scores) != 10 or not all(math.isfinite(score) for score in scores):
        raise Failed(f"the answer is not ten numbers: {scores}")
    digit = max(range(10), key=lambda label: scores[label])
    say(f"version {answer['model_version']} of {model} says: this is a {digit}")
    if digit != 0:
        raise Failed(f"the picture shows a 0, the model says {digit}")


def _progress(status: Object, ready: Object) -> str:
    job = status.get("job") or {}
    if job.get("outcome") == "Running" and job.get("stage"):
        return f"{ready.get('reason', '')}: {job['stage']}"
    return f"{ready.get('reason', 'waiting for the operator')}: {ready.get('message', '')}"


def _ask(url: str, body: Object | None = None) -> Object:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        result: Object = json.load(answer)
        return result


def _stopped(number: int, _frame: object) -> None:
    raise Failed(f"the test was stopped (signal {number})")


def run() -> None:
    """The test. Raises what went wrong."""
    api = client()
    operator_acts(api, namespace=os.environ["OPERATOR_NAMESPACE"])
    given = Path(__file__).with_name("portfolio.json")
    if not given.exists():
        say("no portfolio is made: tests.repository.uri is not set")
        return
    document = json.loads(given.read_text())
    portfolio = Portfolio(api, document)
    try:
        portfolio.make()
        url = portfolio.wait_until_ready(seconds=float(os.environ["TIMEOUT_SECONDS"]))
        predict(url, document["spec"]["serving"]["modelName"])
    except (Failed, ApiRefused, OSError) as error:
        say(f"failed: {error}")
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        portfolio.delete()
        say("what was made is deleted")


def main() -> int:
    """Run the test; the exit code."""
    signal.signal(signal.SIGTERM, _stopped)
    try:
        run()
    except (Failed, ApiRefused, OSError) as error:
        say(f"FAILED: {error}")
        return 1
    say("passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
