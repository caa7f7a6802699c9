"""What a portfolio may not ask of its Jobs: to hide or replace what the product runs.

The API server is asked the same by ``tests/cluster/rules.yaml``.
"""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from reconciled_site import Site, published

from edgefolio.specification.cluster import EnvironmentVariable, JobSpecification, VolumeMount

HIDING = [
    "/",
    "//",
    "/etc",
    "/etc/",
    "/etc/edgefolio",
    "/etc//edgefolio/portfolio.json",
    "//etc/passwd",
    "/tmp",
    "/tmp/.local/lib",
    "/work",
    "/work/x",
    "/claims",
    "/claims/data",
    "/opt",
    "/opt/",
    "/opt/edgefolio",
    "/opt/edgefolio/bin",
    "/opt/edgefolio/lib/python3.11/site-packages",
    "/usr/lib/python3",
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/lib/x86_64-linux-gnu",
    "/var",
    "/var/run",
    "/var/run/secrets/kubernetes.io/serviceaccount",
    "/var/tmp",
    "/run",
    "/run/secrets/kubernetes.io/serviceaccount",
    "/proc",
    "/proc/self",
    "/sys",
    "/dev",
    "/dev/termination-log",
    "/dev/shm",
    "/root",
    "/boot",
    "/../x",
    "/data/..",
    "/data/../etc",
    "/./etc",
    "/data/.",
    "/..",
]
HARMLESS = [
    "/data",
    "/data/",
    "/opt/libraries",
    "/opt/site",
    "/d",
    "/mnt/a/b",
    "/srv",
    "/home/me",
    "/var/lib/data",
    "/etcetera",
    "/data/..x",
    "/a.b/c",
]
TAKEN = [
    "HOME",
    "PATH",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "PYTHONUSERBASE",
    "PYTHONINSPECT",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_AUDIT",
    "BASH_ENV",
    "ENV",
    "IFS",
    "EDGEFOLIO_MAKING",
    "EDGEFOLIO_TERMINATION_MESSAGE",
    "EDGEFOLIO_ANYTHING",
    "POD_NAME",
    "JOB_COMPLETION_INDEX",
    "KUBERNETES_SERVICE_HOST",
    "GLIBC_TUNABLES",
    "GCONV_PATH",
]
FREE = [
    "A",
    "OMP_NUM_THREADS",
    "HTTPS_PROXY",
    "AWS_ENDPOINT_URL",
    "HOMEPAGE",
    "MY_PATH",
    "TORCH_HOME",
    "TMPDIR",
    "LDAP",
]


@pytest.mark.parametrize("path", HIDING)
def test_no_volume_hides_the_product(path: str) -> None:
    with pytest.raises(ValidationError, match="mount at a folder of your own"):
        VolumeMount(claim_name="c", mount_path=path)


@pytest.mark.parametrize("path", HARMLESS)
def test_other_folders_are_free(path: str) -> None:
    assert VolumeMount(claim_name="c", mount_path=path).mount_path == path


@pytest.mark.parametrize("name", TAKEN)
def test_no_variable_replaces_the_product_s(name: str) -> None:
    with pytest.raises(ValidationError, match="can hold what it was for"):
        EnvironmentVariable(name=name, value="x")


@pytest.mark.parametrize("name", FREE)
def test_other_variables_are_free(name: str) -> None:
    assert EnvironmentVariable(name=name).name == name


@pytest.mark.parametrize(
    "settings",
    [
        {"volumes": [{"claimName": "a", "mountPath": "/d"}, {"claimName": "b", "mountPath": "/d/"}]},
        {"volumes": [{"claimName": "a", "mountPath": "/d/e"}, {"claimName": "b", "mountPath": "/d//e"}]},
        {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]},
    ],
)
def test_nothing_is_given_twice(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="twice"):
        JobSpecification.model_validate(settings)


BAD = {"volumes": [{"claimName": "c", "mountPath": "/etc/edgefolio"}]}


def test_a_stored_portfolio_that_asks_for_it_makes_no_job_and_says_why() -> None:
    site = Site(job=BAD)
    plan = site.cycle()
    assert not [document for document in plan.apply if document["kind"] in ("Job", "ConfigMap")]
    assert site.condition("Stalled") == ("True", "InvalidSpec")
    assert site.condition("Ready") == ("False", "InvalidSpec")
    assert site.message("Stalled").startswith("spec.job.volumes.0.mountPath: mountPath hides files of the product")
    site.edit(job={})
    assert "Job" in [document["kind"] for document in site.cycle().apply]
    assert site.condition("Stalled")[0] == "False"


def test_what_serves_goes_on_and_switches_with_a_job_that_may_not_be() -> None:
    site = Site().served()
    site.edit(job={"env": [{"name": "LD_PRELOAD", "value": "/d/evil.so"}]})
    for _ in range(5):
        site.report("edge-1", slowdown=4.0, met=False)
        site.report("edge-2")
        site.cycle()
    assert site.targets() == {"edge-1": "small", "edge-2": "dense"}
    assert site.condition("Stalled") == ("True", "InvalidSpec")
    assert site.condition("Ready") == ("True", "Serving")
    assert site.portfolio["status"]["currentRevision"] == published(1).revision
