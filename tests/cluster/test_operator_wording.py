"""A version of the operator that words things differently restarts nothing: no pod rolls for a text."""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster_site import Operator, Site, wait_for
from control_plane import Kubernetes

from edgefolio.crd import definitions

#: Whatever a later version may say in other words: the scripts in the pod's containers, and messages.
NEXT_VERSION = """
from edgefolio_operator.resources import daemonset
from edgefolio_operator.status import conditions

build_pod = daemonset.build_pod


def reworded(*arguments, **options):
    pod = build_pod(*arguments, **options)
    for container in (*pod["initContainers"], *pod["containers"]):
        container["command"][-1] += "\\n# In other words."
    return pod


daemonset.build_pod = reworded
with_condition = conditions.with_condition
conditions.with_condition = lambda *arguments, message, **options: with_condition(
    *arguments, message=message and f"In other words: {message}", **options
)
"""


def test_a_reworded_version_rolls_no_pod(namespace: Kubernetes, start: Callable[..., Operator], tmp_path: Path) -> None:
    first = start("operator-a")
    site = Site(namespace)
    site.served()
    path = namespace.path("apps/v1", "DaemonSet", "digits")
    before = namespace.request("GET", path)
    generation = site.get()["metadata"]["generation"]
    jobs = [job["metadata"]["uid"] for job in site.jobs()]
    assert first.end() == 0

    # Definitions with other descriptions, as an upgrade brings them.
    for definition in (definitions.model_portfolio(), definitions.model_endpoint()):
        namespace.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=_reworded(definition))
    try:
        (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(NEXT_VERSION))
        images = {f"EDGEFOLIO_{name}_IMAGE": f"next/{name.lower()}:2" for name in ("PRUNER", "AGENT", "TRITON")}
        second = start("operator-b", environment={"PYTHONPATH": str(tmp_path), **images})
        # It acts, in its own words: what it is told reaches an endpoint.
        wait_for(lambda: "In other words" in site.message("Ready") + site.message("ObjectivesMet"))
        site.report(0, slowdown=4.0)
        wait_for(lambda: site.target(0) == "small")
        site.report(0)
        after = namespace.request("GET", path)
        assert after["spec"]["template"] == before["spec"]["template"]
        assert after["metadata"]["generation"] == before["metadata"]["generation"]
        assert site.get()["metadata"]["generation"] == generation
        assert [job["metadata"]["uid"] for job in site.jobs()] == jobs
        # The next version indeed words it differently: a pod that is made anew for a reason of its own says so.
        site.portfolio(serving={"modelName": "digits", "managed": {"nodeSelector": {"class": "edge"}}})
        wait_for(lambda: "In other words" in str(namespace.request("GET", path)["spec"]["template"]))
        assert second.end() == 0
    finally:
        for definition in (definitions.model_portfolio(), definitions.model_endpoint()):
            namespace.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=definition)


def _reworded(schema: Any) -> Any:
    """A definition whose descriptions say the same in other words."""
    found = copy.deepcopy(schema)
    if isinstance(found, dict):
        return {
            key: f"In other words: {value}" if key == "description" and isinstance(value, str) else _reworded(value)
            for key, value in found.items()
        }
    return [_reworded(value) for value in found] if isinstance(found, list) else found
