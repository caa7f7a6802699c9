"""Says what changes on the cluster while something is waited for: stages of the Job, variants, decisions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class Watch:
    """Prints a line for each change of a portfolio's making and of its endpoints."""

    def __init__(self, site: Any, say: Callable[[str], None]) -> None:
        self._site = site
        self._say = say
        self._said: dict[str, str] = {}

    def until(self, what: str, claim: Callable[[], bool], *, seconds: float) -> bool:
        """Watch until ``claim`` holds; whether it did within ``seconds``."""
        end = time.monotonic() + seconds
        while not claim():
            if time.monotonic() > end:
                self._say(f"still not {what} after {seconds:.0f} s")
                return False
            self.look()
            time.sleep(0.5)
        self.look()
        return True

    def look(self) -> None:
        """Say what is new."""
        status = self._site.portfolio().get("status", {})
        job = status.get("job") or {}
        if job.get("outcome") == "Running" and job.get("stage"):
            self._tell("job", f"job: {job['stage']}, {job.get('progressPercent', 0)} %")
        for revision in status.get("revisions", []):
            variants = ", ".join(map(_described, revision.get("variants", [])))
            self._tell(f"revision {revision['number']}", f"revision {revision['number']} is published: {variants}")
        endpoints = self._site.endpoints()
        nodes = {endpoint["metadata"]["name"]: node for node, endpoint in endpoints.items()}
        for event in sorted(self._site.events(), key=lambda event: str(event["metadata"]["creationTimestamp"])):
            about = event["involvedObject"]
            if about["kind"] == "ModelEndpoint" and about["name"] in nodes:
                text = f"{nodes[about['name']]}: {event['reason']}: {event['message']}"
                self._tell(event["metadata"]["uid"], text)
        for node, endpoint in sorted(endpoints.items()):
            active = endpoint.get("status", {}).get("activeVariant")
            if active is not None:
                self._tell(node, f"{node} serves {active}")

    def _tell(self, about: str, text: str) -> None:
        if self._said.get(about) != text:
            self._said[about] = text
            self._say(text)


def _described(variant: dict[str, Any]) -> str:
    accuracy, latency = float(variant["accuracyPercent"]), float(variant["p95Milliseconds"])
    return f"{variant['name']} ({accuracy:.1f} %, p95 {latency:.1f} ms)"
