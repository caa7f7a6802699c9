"""The air-gap bundle: what is in it, what the node gets, and what is refused.

The images are small, but real archives.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import CHART, ROOT, SYSTEM, VALUES, Chart

from edgefolio.components import TRITON_IMAGE

SCRIPT = ROOT / "scripts" / "airgap-bundle"
MAKE_IMAGE = ROOT / "tests" / "cluster" / "bed" / "images" / "mkimage.py"
NAMES = {
    "operator": "ghcr.io/edgefolio/operator:0.1.0",
    "agent": "ghcr.io/edgefolio/agent:0.1.0",
    "pruner": "ghcr.io/edgefolio/pruner:0.1.0",
    "triton": TRITON_IMAGE,
}


def bundle(helm: Path, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the script with helm, and whatever lies in ``folder``, on PATH."""
    path = os.pathsep.join([str(folder), str(helm.parent), os.environ["PATH"]])
    return subprocess.run(
        [sys.executable, "-W", "error", SCRIPT, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def docker_archive(path: Path, *names: str) -> Path:
    """As `docker save` writes it, as far as anyone looks into it here."""
    manifest = json.dumps([{"Config": "c.json", "RepoTags": list(names), "Layers": []}]).encode()
    with tarfile.open(path, "w") as archive:
        for name, content in (("manifest.json", manifest), ("c.json", b"{}")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def archives(tmp_path: Path) -> list[Path]:
    """The four images: an OCI layout, one of Docker's with two images, one that is gzipped."""
    folder = tmp_path / "archives"
    folder.mkdir()
    (folder / "file").write_text("content")
    operator = folder / "operator.tar"
    adding = ("--add", f"{folder / 'file'}:/file")
    subprocess.run([sys.executable, MAKE_IMAGE, operator, NAMES["operator"], *adding], check=True)
    both = docker_archive(folder / "edge.tar", NAMES["agent"], NAMES["triton"])
    plain = docker_archive(folder / "pruner.tar", NAMES["pruner"])
    zipped = folder / "pruner.tar.gz"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    return [operator, both, zipped]


@pytest.fixture
def unpacked(helm: Path, tmp_path: Path, archives: list[Path]) -> Path:
    done = bundle(helm, tmp_path, "--images", *archives)
    assert done.returncode == 0, done.stderr
    (tmp_path / "node").mkdir()
    subprocess.run(["tar", "-xzf", tmp_path / "edgefolio-airgap-0.1.0.tar.gz", "-C", tmp_path / "node"], check=True)
    return tmp_path / "node" / "edgefolio-airgap-0.1.0"


def helm_chart(path: Path) -> dict[str, Any]:
    documents = list(yaml.safe_load_all(path.read_text()))
    assert [document["kind"] for document in documents] == ["Namespace", "HelmChart"]
    return dict(documents[1])


def test_what_is_in_it(unpacked: Path) -> None:
    assert sorted(path.name for path in unpacked.iterdir()) == [
        "SHA256SUMS",
        "edgefolio-0.1.0.tgz",
        "edgefolio.yaml",
        "images",
        "images.txt",
        "install.sh",
    ]
    assert sorted(path.name for path in (unpacked / "images").iterdir()) == [
        "edge.tar",
        "operator.tar",
        "pruner.tar.gz",
    ]
    assert (unpacked / "images.txt").read_text().split() == sorted(NAMES.values())


def test_the_chart_inside_is_the_chart(unpacked: Path, chart: Chart, tmp_path: Path) -> None:
    spec = helm_chart(unpacked / "edgefolio.yaml")["spec"]
    assert not spec.keys() & {"chart", "version", "repo"}
    assert spec["targetNamespace"] == SYSTEM
    package = tmp_path / "decoded.tgz"
    package.write_bytes(base64.b64decode(spec["chartContent"]))
    assert package.read_bytes() == (unpacked / "edgefolio-0.1.0.tgz").read_bytes()
    where = ("--namespace", SYSTEM, "--kube-version", "1.36.0", "--values", "-")
    rendered = chart.run("template", "edgefolio", str(package), *where, stdin=spec["valuesContent"])
    assert list(filter(None, yaml.safe_load_all(rendered))) == chart.documents(VALUES["k3s"])


def test_own_values_and_a_package(helm: Path, chart: Chart, tmp_path: Path) -> None:
    chart.run("package", str(CHART), "--destination", str(tmp_path))
    values = tmp_path / "values.yaml"
    values.write_text("# ours\nimage:\n  repository: mirror/operator\n\nimagePullSecrets: []\n")
    archive = docker_archive(tmp_path / "all.tar", "mirror/operator:0.1.0", *NAMES.values())
    package = tmp_path / "edgefolio-0.1.0.tgz"
    arguments = ("--chart", package, "--values", values, "--images", archive, "--output", "site.tar.gz")
    done = bundle(helm, tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / "site.tar.gz") as opened:
        text = opened.extractfile("edgefolio-airgap-0.1.0/edgefolio.yaml")
        assert text is not None
        (tmp_path / "edgefolio.yaml").write_bytes(text.read())
    spec = helm_chart(tmp_path / "edgefolio.yaml")["spec"]
    assert yaml.safe_load(spec["valuesContent"]) == yaml.safe_load(values.read_text())
    assert base64.b64decode(spec["chartContent"]) == package.read_bytes()


def test_list_makes_nothing(helm: Path, tmp_path: Path) -> None:
    done = bundle(helm, tmp_path, "--list")
    assert done.stdout.split() == sorted(NAMES.values())
    assert list(tmp_path.iterdir()) == []


def install(folder: Path, data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", folder / "install.sh", *arguments],
        env={**os.environ, "K3S_DATA": str(data)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_server_gets_images_and_manifest_and_an_agent_the_images(unpacked: Path, tmp_path: Path) -> None:
    for role, expected in (("server", True), ("agent", False)):
        data = tmp_path / role
        done = install(unpacked, data, *(() if role == "server" else (role,)))
        assert done.returncode == 0, done.stderr
        got = {str(path.relative_to(data)) for path in data.rglob("*") if path.is_file()}
        images = {f"agent/images/{path.name}" for path in (unpacked / "images").iterdir()}
        # K3s would pull what a list of names in that directory says.
        assert got == images | ({"server/manifests/edgefolio.yaml"} if expected else set())
        for path in (unpacked / "images").iterdir():
            assert (data / "agent" / "images" / path.name).read_bytes() == path.read_bytes()


def test_a_damaged_bundle_installs_nothing(unpacked: Path, tmp_path: Path) -> None:
    damaged = unpacked / "images" / "edge.tar"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    done = install(unpacked, tmp_path / "data")
    assert done.returncode != 0
    assert "edge.tar" in done.stdout + done.stderr
    assert not (tmp_path / "data").exists()
    assert install(unpacked, tmp_path / "data", "master").returncode == 2


def test_a_missing_image_is_named(helm: Path, tmp_path: Path, archives: list[Path]) -> None:
    done = bundle(helm, tmp_path, "--images", *archives[:2])
    assert done.returncode == 1
    assert f"no archive holds {NAMES['pruner']}" in done.stderr
    assert not list(tmp_path.glob("*.tar.gz*"))


def test_what_is_no_archive_is_refused(helm: Path, tmp_path: Path, archives: list[Path]) -> None:
    (tmp_path / "text.tar").write_text("no archive")
    nameless = docker_archive(tmp_path / "nameless.tar")
    same = tmp_path / "operator.tar"
    same.write_bytes(archives[0].read_bytes())
    for wrong, said in (
        (["text.tar"], "text.tar is no image archive"),
        ([nameless], "nameless.tar names no image"),
        ([archives[0], same], "two archives are called operator.tar"),
        (["absent.tar"], "absent.tar"),
    ):
        done = bundle(helm, tmp_path, "--images", *wrong)
        assert done.returncode == 1
        assert said in done.stderr


def test_what_is_missing_is_fetched(helm: Path, tmp_path: Path, archives: list[Path]) -> None:
    """skopeo's place is taken by a program that writes what it was asked for: there is no registry here."""
    program = f"""\
#!{sys.executable}
import io, json, sys, tarfile
print(sys.argv, file=open({str(tmp_path / "asked")!r}, "a"))
source, target = sys.argv[-2:]
path, _, name = target.removeprefix("docker-archive:").partition(":")
manifest = json.dumps([{{"RepoTags": [name]}}]).encode()
info = tarfile.TarInfo("manifest.json")
info.size = len(manifest)
with tarfile.open(path, "w") as archive:
    archive.addfile(info, io.BytesIO(manifest))
"""
    (tmp_path / "skopeo").write_text(program)
    (tmp_path / "skopeo").chmod(0o755)
    done = bundle(helm, tmp_path, "--pull", "--platform", "linux/arm64", "--images", *archives[:2])
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text()
    assert asked.count("copy") == 1, "what is there is not fetched"
    assert "'--override-arch', 'arm64'" in asked
    assert f"docker://{NAMES['pruner']}" in asked
    with tarfile.open(tmp_path / "edgefolio-airgap-0.1.0.tar.gz") as archive:
        assert "edgefolio-airgap-0.1.0/images/ghcr.io-edgefolio-pruner-0.1.0.tar" in archive.getnames()
