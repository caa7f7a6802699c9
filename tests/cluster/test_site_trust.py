"""What reaches Triton: verified bytes of a pinned manifest. Each attacker here can write to the bucket."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster_site import wait_for
from edge_site import EdgeSite

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


def _corrupt(folder: Path, manifest: dict[str, Any]) -> None:
    for variant in manifest["variants"]:
        path = folder / "models" / "digits" / variant["file"]
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 0xFF
        path.write_bytes(bytes(raw))


def _swap(folder: Path, manifest: dict[str, Any]) -> None:
    paths = [folder / "models" / "digits" / variant["file"] for variant in manifest["variants"]]
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents[1:] + contents[:1], strict=True):
        path.write_bytes(content)


def _tamper(folder: Path, manifest: dict[str, Any]) -> None:
    for variant in manifest["variants"]:
        variant["testAccuracy"]["percent"] = 99.9
    _manifest(folder, manifest)


def _traverse(folder: Path, manifest: dict[str, Any]) -> None:
    for variant in manifest["variants"]:
        variant["file"] = "../../../../etc/passwd"
    _manifest(folder, manifest)


def _half(folder: Path, manifest: dict[str, Any]) -> None:
    for variant in manifest["variants"]:
        shutil.rmtree((folder / "models" / "digits" / variant["file"]).parent)


def _manifest(folder: Path, manifest: dict[str, Any]) -> None:
    path = folder / "revisions" / "digits" / f"{manifest['revision']}.json"
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("attack", "named"),
    [
        pytest.param(_corrupt, re.compile(r"model\.onnx"), id="corrupt bytes"),
        pytest.param(_swap, re.compile(r"model\.onnx"), id="swapped bytes"),
        pytest.param(_tamper, re.compile(r"digits/\d+\.json"), id="tampered manifest"),
        pytest.param(_traverse, re.compile(r"digits/\d+\.json"), id="path traversal"),
        pytest.param(_half, re.compile(r"model\.onnx"), id="half an upload"),
    ],
)
def test_a_new_node_serves_nothing_that_was_not_vouched_for(
    site: EdgeSite, attack: Callable[[Path, dict[str, Any]], None], named: re.Pattern[str]
) -> None:
    folder = site.bucket / "site"
    kept = folder.with_name("site-kept")
    shutil.copytree(folder, kept, dirs_exist_ok=True)
    number = site.portfolio()["status"]["currentRevision"]
    manifest = json.loads((folder / "revisions" / "digits" / f"{number}.json").read_text())
    attack(folder, manifest)
    try:
        site.serve_on("edge-1", "edge-2", "edge-3")

        def refused() -> dict[str, Any] | None:
            status = site.endpoints().get("edge-3", {}).get("status", {})
            assert not status.get("activeVariant"), status["activeVariant"]
            found = [entry for entry in status.get("conditions", []) if entry["type"] == "Synced"]
            return found[0] if found and found[0]["reason"] == "Refused" else None

        condition = wait_for(refused, seconds=120)
        assert condition["status"] == "False"
        assert named.search(condition["message"]), condition["message"]
        # Those that serve already go on.
        assert site.active("edge-1") == site.active("edge-2") == site.most_accurate
    finally:
        shutil.rmtree(folder)
        shutil.move(kept, folder)
    # Once the bucket is whole again the node serves without anybody's help.
    site.settle_on(site.most_accurate, "edge-3", seconds=120)
    site.serve_on("edge-1", "edge-2")
    wait_for(lambda: set(site.endpoints()) == {"edge-1", "edge-2"}, seconds=90)
