#!/usr/bin/env python3
"""Write an OCI image archive for ``ctr images import``: no daemon, no registry, standard library only.

    mkimage.py app.tar bed.local/app:1 --layer rootfs.tar --add site:/opt/site --cmd /usr/bin/python3 -m app

Layers are stored uncompressed (they are only used on this machine, and importing them is faster) and streamed, so that
a layer of gigabytes needs no memory. ``--base`` takes the layers of an archive made by this program.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SEARCH_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OCI = "application/vnd.oci.image"


class Blobs:
    """The content-addressed part of the archive: digest -> file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, Path] = {}

    def file(self, path: Path, media_type: str) -> dict[str, Any]:
        with path.open("rb") as opened:
            digest = "sha256:" + hashlib.file_digest(opened, "sha256").hexdigest()
        self.files[digest] = path
        return {"mediaType": media_type, "digest": digest, "size": path.stat().st_size}

    def json(self, value: object, media_type: str) -> dict[str, Any]:
        path = self.folder / f"{len(self.files)}.json"
        path.write_text(json.dumps(value))
        return self.file(path, media_type)


def layer_of(pairs: list[str], path: Path) -> Path:
    """A layer of SOURCE:TARGET pairs, owned by root and without times: equal content gives an equal digest."""

    def normal(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = "root"
        return info

    with tarfile.open(path, "w") as archive:
        for pair in pairs:
            source, target = pair.rsplit(":", 1)
            archive.add(source, target.lstrip("/"), filter=normal)
    return path


def layers_of(archive: Path, folder: Path) -> Iterator[Path]:
    """The layers of an archive, unpacked into ``folder``."""
    with tarfile.open(archive) as opened:

        def blob(name: str) -> Any:
            return opened.extractfile(name)

        index = json.load(blob("index.json"))
        manifest = json.load(blob(path_of(index["manifests"][0]["digest"])))
        for number, layer in enumerate(manifest["layers"]):
            path = folder / f"base{number}.tar"
            with path.open("wb") as file:
                shutil.copyfileobj(blob(path_of(layer["digest"])), file, 1 << 20)
            yield path


def path_of(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("name", help="with tag, not `latest` (which would always be pulled)")
    parser.add_argument("--base", type=Path, help="image archive whose layers come first")
    parser.add_argument("--layer", type=Path, action="append", default=[], help="uncompressed tar")
    parser.add_argument("--add", action="append", default=[], metavar="SOURCE:TARGET", help="together one more layer")
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--user", default="")
    parser.add_argument("--workdir", default="/")
    parser.add_argument("--entrypoint", nargs="+")
    parser.add_argument("--cmd", nargs=argparse.REMAINDER, help="last option: takes the rest of the line")
    return parser.parse_args()


def manifest_of(given: argparse.Namespace, blobs: Blobs, paths: list[Path]) -> dict[str, Any]:
    """Descriptor of the image's manifest; its blobs are noted in ``blobs``."""
    layers = [blobs.file(path, f"{OCI}.layer.v1.tar") for path in paths]
    settings = {
        "Entrypoint": given.entrypoint,
        "Cmd": given.cmd,
        "Env": [SEARCH_PATH, *given.env],
        "User": given.user,
        "WorkingDir": given.workdir,
    }
    configuration = {
        "architecture": "amd64",
        "os": "linux",
        "config": {key: value for key, value in settings.items() if value},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
        # buildah builds on an image only if its history names as many layers as there are.
        "history": [{"created_by": path.name} for path in paths],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": blobs.json(configuration, f"{OCI}.config.v1+json"),
        "layers": layers,
    }
    names = {
        "io.containerd.image.name": given.name,
        "org.opencontainers.image.ref.name": given.name.rsplit(":", 1)[1],
    }
    platform = {"architecture": "amd64", "os": "linux"}
    return {**blobs.json(manifest, f"{OCI}.manifest.v1+json"), "platform": platform, "annotations": names}


def main() -> None:
    given = arguments()
    with tempfile.TemporaryDirectory(dir=given.archive.resolve().parent) as temporary:
        folder = Path(temporary)
        blobs = Blobs(folder)
        paths = [*(layers_of(given.base, folder) if given.base else ()), *given.layer]
        if given.add:
            paths.append(layer_of(given.add, folder / "added.tar"))
        index = {"schemaVersion": 2, "manifests": [manifest_of(given, blobs, paths)]}
        unfinished = given.archive.with_name(given.archive.name + ".part")
        with tarfile.open(unfinished, "w") as archive:
            for name, document in {"oci-layout": {"imageLayoutVersion": "1.0.0"}, "index.json": index}.items():
                path = folder / name
                path.write_text(json.dumps(document))
                archive.add(path, name)
            for digest, path in blobs.files.items():
                archive.add(path, path_of(digest))
        unfinished.replace(given.archive)


if __name__ == "__main__":
    main()
