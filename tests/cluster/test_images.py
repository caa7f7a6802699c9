"""The images themselves, without a cluster: what is in them, and that they run as restricted as our pods are."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from cluster_images import USER, Finished, Image, Restricted
from control_plane import NotBuilt, bed_cache
from onnx import TensorProto, helper
from packaging.utils import canonicalize_name

import edgefolio
from edgefolio.contract.pod import HEALTH_MOUNT, KEY_MOUNT, MODELS_MOUNT
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator.resources.pruning_job import Images, build_job
from edgefolio_operator.resources.triton_pod import build_pod

MEGABYTE = 1_000_000
#: Not compressed. The operator's is a promise; the others are there to notice what creeps in.
LARGEST = {
    "operator": 250 * MEGABYTE,
    "edge": 350 * MEGABYTE,
    "triton": 400 * MEGABYTE,
    "pruner": 250 * MEGABYTE,  # without the libraries that are mounted
}
CASES = yaml.safe_load((Path(__file__).parent / "rules.yaml").read_text())
PORTFOLIO = ModelPortfolio.model_validate(
    {
        "apiVersion": "edgefolio.dev/v1alpha1",
        "kind": "ModelPortfolio",
        "metadata": {"name": "digits", "namespace": "default"},
        "spec": {**CASES["bases"][1], "serving": {"modelName": "digits"}},
    }
)
NAMES = Images(pruner="pruner:1", agent="agent:1", triton="triton:1")
MODEL = "digits"
LABELS = "org.opencontainers.image"


@pytest.fixture(scope="session")
def image_of() -> Callable[[str], Image]:
    """The archive of an image, or a skip that says how to get it."""
    try:
        folder = bed_cache() / "images"
    except NotBuilt as error:
        pytest.skip(str(error))

    def image_of(name: str) -> Image:
        archive = folder / f"edgefolio-{name}.tar"
        if not archive.exists():
            pytest.skip(
                f"{archive.name} not built: {Path(__file__).parent / 'bed' / 'build.sh'} packages images edgefolio"
            )
        return Image.read(archive)

    return image_of


@pytest.fixture(scope="module")
def root_of(
    tmp_path_factory: pytest.TempPathFactory, image_of: Callable[[str], Image]
) -> Iterator[Callable[[str], Path]]:
    """The unpacked root file system of an image."""
    if os.geteuid() != 0:
        pytest.skip("files with owners need root")
    roots: dict[str, Path] = {}

    def root_of(name: str) -> Path:
        if name not in roots:
            roots[name] = tmp_path_factory.mktemp(name)
            image_of(name).unpack(roots[name])
        return roots[name]

    yield root_of
    for root in roots.values():
        shutil.rmtree(root)


@pytest.fixture
def restricted(
    tmp_path: Path, image_of: Callable[[str], Image], root_of: Callable[[str], Path]
) -> Callable[[str], Restricted]:
    """A place to run an image's commands."""
    if shutil.which("runc") is None:
        pytest.skip("runc is not installed")
    return lambda name: Restricted(image=image_of(name), root=root_of(name), folder=tmp_path / "containers")


@pytest.mark.parametrize("name", LARGEST)
def test_an_image_says_what_it_is(
    name: str, image_of: Callable[[str], Image], record_property: Callable[[str, object], None]
) -> None:
    image = image_of(name)
    record_property("size", image.size)
    assert image.size < LARGEST[name], f"{image.size / MEGABYTE:.0f} MB"
    assert image.configuration["User"] == f"{USER}:{USER}"
    assert image.configuration["Entrypoint"]
    labels = image.configuration["Labels"]
    assert labels[f"{LABELS}.title"] == {"edge": "edgefolio-agent"}.get(name, f"edgefolio-{name}")
    assert labels[f"{LABELS}.version"] == edgefolio.__version__
    assert labels[f"{LABELS}.licenses"].startswith("Apache-2.0")
    assert labels[f"{LABELS}.description"]
    assert {f"{LABELS}.source", f"{LABELS}.revision"} <= labels.keys()
    assert image.environment["HOME"] == "/tmp"
    assert image.environment["PYTHONUNBUFFERED"] == "1"


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGEST)
def test_nothing_in_an_image_is_left_over_or_can_be_changed(name: str, root_of: Callable[[str], Path]) -> None:
    root = root_of(name)
    leftover, changeable = [], []
    for folder, folders, files in os.walk(root):
        if Path(folder) == root:
            folders.remove("dev")  # the runtime puts its own in its place
        for entry in (*folders, *files):
            path = Path(folder) / entry
            shown = str(path.relative_to(root))
            status = path.lstat()
            if entry.endswith(".whl") or shown in ("build", "wheels", "root/.cache", "opt/edgefolio/bin/pip"):
                leftover.append(shown)
            if stat.S_ISLNK(status.st_mode):
                continue
            shared = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
            if USER in (status.st_uid, status.st_gid) or (status.st_mode & stat.S_IWOTH and not shared):
                changeable.append(shown)
            assert not (status.st_mode & stat.S_ISUID and shown.startswith("opt/")), shown
    assert leftover == []
    assert changeable == []
    assert not list((root / "tmp").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGEST)
def test_every_package_is_the_pinned_one(name: str, root_of: Callable[[str], Path]) -> None:
    lines = (Path(__file__).parents[2] / "constraints.txt").read_text().splitlines()
    pinned = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines if "==" in line}
    (packages,) = (root_of(name) / "opt" / "edgefolio" / "lib").glob("python3.*/site-packages")
    found = {canonicalize_name(each.name): each.version for each in distributions(path=[str(packages)])}
    own = found.pop("edgefolio", None)
    assert own == (None if name == "triton" else edgefolio.__version__)
    assert len(found) >= 4
    assert found.items() <= pinned.items()


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGEST)
def test_everything_is_compiled(name: str, root_of: Callable[[str], Path]) -> None:
    root = root_of(name)
    (packages,) = (root / "opt" / "edgefolio" / "lib").glob("python3.*/site-packages")
    sources = [*packages.glob("edgefolio*/**/*.py"), *packages.glob("pydantic/*.py"), *packages.glob("numpy/*.py")]
    sources += [*(root / "opt" / "tritonserver").glob("backends/*/*.py"), root / "usr/lib/python3.11/json/decoder.py"]
    assert sources
    compiled = [source.parent / "__pycache__" / f"{source.stem}.cpython-311.pyc" for source in sources]
    assert [str(path) for path in compiled if not path.exists()] == []
    # Flags 1: read as it is, compared with nothing.
    assert {path.read_bytes()[4:8] for path in compiled} == {b"\x01\0\0\0"}


@pytest.mark.slow
def test_the_operator_runs_restricted(restricted: Callable[[str], Restricted], tmp_path: Path) -> None:
    operator = restricted("operator")
    command = operator.image.configuration["Entrypoint"]
    refused = operator.run(*command, environment={"EDGEFOLIO_CYCLE_SECONDS": "often"})
    assert (refused.exit_code, "EDGEFOLIO_CYCLE_SECONDS = 'often'" in refused.output) == (2, True), refused.output
    # It gets as far as looking for a cluster, which is not there.
    log = tmp_path / "operator.log"
    with operator.running(*command, log=log) as running:
        end = time.monotonic() + 60
        while "kopf" not in log.read_text():
            assert running.process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
    assert "/tmp/.kube/config" in log.read_text()
    assert "Read-only file system" not in log.read_text()


@pytest.mark.slow
def test_the_agent_runs_restricted(restricted: Callable[[str], Restricted], tmp_path: Path) -> None:
    agent = restricted("edge")
    agent.mount(_volume(tmp_path / "state"), "/state")
    agent.mount(_volume(tmp_path / "health"), HEALTH_MOUNT)
    # The pod's command looks after the agent, and hands on why it ended before its first sync.
    for command in (agent.image.configuration["Entrypoint"], _pod_of_endpoint()["initContainers"][1]["command"]):
        refused = agent.run(*command, environment={"POD_NAME": "digits-a"})
        assert refused.exit_code == 2, refused.output
        assert refused.output.startswith("error: "), refused.output
    imported = agent.run("python3", "-c", "import edgefolio_edge.agent.loop, tritonclient.grpc, s3fs")
    assert imported == Finished(exit_code=0, output="")


@pytest.mark.slow
def test_the_pruner_runs_restricted(restricted: Callable[[str], Restricted], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pruner = restricted("pruner")
    # The large libraries come from a volume: here, those of the environment that runs this test.
    pruner.mount(Path(torch.__file__).parents[1], "/opt/libraries", read_only=True)
    pruner.mount(_volume(tmp_path / "work"), "/work")
    specification = _volume(tmp_path / "specification")
    spec = {"data": {"trainingURI": "builtin:nonesuch"}, "serving": {"modelName": MODEL}}
    spec |= {"source": {"architecture": {"library": "edgefolio", "name": "cnn"}}, "methods": {"sparseTraining": {}}}
    document = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "metadata": {"name": "digits"}}
    document["spec"] = {**spec, "repository": {"uri": "/work/portfolios"}}
    (specification / "portfolio.json").write_text(json.dumps(document))
    pruner.mount(specification, "/etc/edgefolio", read_only=True)
    message = _volume(tmp_path / "termination") / "log"
    pruner.mount(message.parent, "/termination")
    container = build_job(PORTFOLIO, key="0" * 16, owner={}, images=NAMES)["spec"]["template"]["spec"]["containers"][0]
    refused = pruner.run(
        *container["command"],
        *container["args"],
        environment={"EDGEFOLIO_TERMINATION_MESSAGE": "/termination/log"},
        seconds=120,
    )
    assert refused.exit_code == 2, refused.output
    assert "nonesuch" in message.read_text()
    origin = pruner.run("python3", "-c", "import torch, edgefolio_pruner as p; print(torch.__file__, p.__file__)")
    assert origin.output.startswith("/opt/libraries/torch/"), origin.output
    assert " /opt/edgefolio/" in origin.output


@pytest.mark.slow
def test_triton_serves_with_our_backend(restricted: Callable[[str], Restricted], tmp_path: Path) -> None:
    pod = _pod_of_endpoint()
    key = _volume(tmp_path / "key")
    agent = restricted("edge")
    agent.mount(key, KEY_MOUNT)
    made = agent.run(*pod["initContainers"][0]["command"])
    assert made == Finished(exit_code=0, output="")
    name, secret = (key / "key").read_text().strip().split("=")
    triton = restricted("triton")
    triton.mount(key, KEY_MOUNT, read_only=True)
    triton.mount(_volume(tmp_path / "health"), HEALTH_MOUNT)
    triton.mount(_model(tmp_path / "models"), MODELS_MOUNT, read_only=True)
    with triton.running(*pod["containers"][0]["command"], log=tmp_path / "triton.log") as server:
        server.wait_for("python3", "-c", _request("v2/health/live"), seconds=60)
        with pytest.raises(AssertionError, match="403"):
            server.execute("python3", "-c", _request(f"v2/repository/models/{MODEL}/load", {}))
        server.execute("python3", "-c", _request(f"v2/repository/models/{MODEL}/load", {}, header=(name, secret)))
        tensor = {"name": "image", "shape": [1, 2], "datatype": "FP32", "data": [1.5, 2.5]}
        answer = server.execute("python3", "-c", _request(f"v2/models/{MODEL}/infer", {"inputs": [tensor]}))
        assert json.loads(answer)["outputs"][0]["data"] == [3.0, 5.0]
    assert secret not in (tmp_path / "triton.log").read_text()


def _pod_of_endpoint() -> dict[str, Any]:
    # With HTTP, which the program inside the image can speak without a library.
    return build_pod(PORTFOLIO, images=NAMES, http=True)


def _volume(folder: Path) -> Path:
    """An empty volume that belongs to the pod's group, as a kubelet makes it."""
    folder.mkdir()
    os.chown(folder, 0, USER)
    folder.chmod(0o2775)
    # pytest's own folders are for their user alone.
    for parent in folder.parents[:3]:
        parent.chmod(0o755)
    return folder


def _model(folder: Path) -> Path:
    """A model repository with one version, which doubles its input, and its probe."""
    tensors = [helper.make_tensor_value_info(each, TensorProto.FLOAT, ["batch", 2]) for each in ("image", "logits")]
    graph = helper.make_graph(
        [helper.make_node("Add", ["image", "image"], ["logits"])], "double", tensors[:1], tensors[1:]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    version = folder / MODEL / "1"
    version.mkdir(parents=True)
    onnx.save(model, version / "model.onnx")
    shown = np.array([[1, 2]], np.float32)
    probe = {
        part: [{"name": each, "dtype": "float32", "shape": [1, 2], "data": base64.b64encode(raw.tobytes()).decode()}]
        for part, each, raw in (("inputs", "image", shown), ("outputs", "logits", 2 * shown))
    }
    (version / "probe.json").write_text(json.dumps({**probe, "absoluteTolerance": 1e-6, "requestBatchSize": 1}))
    (folder / MODEL / "config.pbtxt").write_text(
        f'name: "{MODEL}"\nbackend: "onnxruntime"\nmax_batch_size: 4\n'
        'input [{name: "image" data_type: TYPE_FP32 dims: [2]}]\n'
        'output [{name: "logits" data_type: TYPE_FP32 dims: [2]}]\n'
        "instance_group [{count: 1 kind: KIND_CPU}]\n"
    )
    return folder


def _request(path: str, body: object = None, *, header: tuple[str, str] | None = None) -> str:
    """A program that sends a request to the server beside it and prints the answer."""
    headers = {"Content-Type": "application/json", **(dict([header]) if header else {})}
    data = "None" if body is None else repr(json.dumps(body).encode())
    return (
        "import urllib.request as u\n"
        f"request = u.Request('http://127.0.0.1:8000/{path}', data={data}, headers={headers!r})\n"
        "print(u.urlopen(request, timeout=30).read().decode())\n"
    )
