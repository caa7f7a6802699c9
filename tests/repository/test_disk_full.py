"""A full disk: said before anything is fetched, and what is half written does not keep it full."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from drafts import contents_of, publish_draft
from faulty_server import faulty_server, files_of

from edgefolio.errors import DiskFullError, IntegrityError, UserError
from edgefolio.files import write_durably
from edgefolio.manifest import sha256_of
from edgefolio.repository import Repository
from edgefolio.repository.fetching import fetch_verified
from edgefolio.repository.storage import open_storage

FETCH = """
import resource, sys
from edgefolio.errors import EdgefolioError
from edgefolio.repository.fetching import fetch_verified
from edgefolio.repository.storage import open_storage
from pathlib import Path
uri, path, folder, sha256, size, largest = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest), int(largest)))
storage = open_storage(uri, field="--repository")
try:
    fetch_verified(storage, path, Path(folder) / "x", sha256=sha256, size_bytes=int(size))
except EdgefolioError as error:
    print(type(error).__name__, error)
"""


def test_room_is_looked_for_before_the_store_is_asked(tmp_path: Path) -> None:
    publish_draft(str(tmp_path / "repository"), tmp_path / "drafts")
    with faulty_server(files_of(tmp_path / "repository")) as server:
        storage = open_storage(server.url, field="--repository")
        with pytest.raises(DiskFullError, match=r"no space left: \d+ bytes are needed, \d+ are free") as caught:
            fetch_verified(
                storage, "models/digits/101/model.onnx", tmp_path / "cache" / "x", sha256="0" * 64, size_bytes=1 << 60
            )
        assert server.seen == []
    error = caught.value
    assert str(tmp_path / "cache") in str(error.value)
    assert error.field == "local disk"
    assert server.url not in str(error)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("kept", [0, 1000])
def test_what_a_full_disk_cut_off_is_removed(tmp_path: Path, kept: int) -> None:
    content = bytes(range(256)) * 2000
    path = "models/digits/101/model.onnx"
    (tmp_path / "repository" / path).parent.mkdir(parents=True)
    (tmp_path / "repository" / path).write_bytes(content)
    folder = tmp_path / "cache"
    folder.mkdir()
    if kept:
        (folder / f".x.{sha256_of(content)[:16]}.partial").write_bytes(content[:kept])
    arguments = [str(tmp_path / "repository"), path, str(folder), sha256_of(content), str(len(content)), "100000"]
    done = subprocess.run([sys.executable, "-c", FETCH, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("DiskFullError local disk"), done.stdout + done.stderr
    assert f"{len(content) - 100_000} bytes are needed" in done.stdout
    assert "repository" not in done.stdout.replace(str(tmp_path), "")
    assert list(folder.iterdir()) == []


def test_the_rest_of_a_broken_transfer_stays_and_that_of_wrong_bytes_goes(tmp_path: Path) -> None:
    publish_draft(str(tmp_path / "repository"), tmp_path / "drafts")
    repository = Repository.open(str(tmp_path / "repository"))
    _, manifest = repository.current_manifest("digits")
    content = contents_of("one")["small"]
    partial = tmp_path / "cache" / f".model.onnx.{sha256_of(content)[:16]}.partial"
    partial.parent.mkdir()
    partial.write_bytes(content[:1000])
    (tmp_path / "repository/models/digits/101/model.onnx").write_bytes(b"x" * len(content))
    with pytest.raises(IntegrityError):
        repository.fetch(manifest, manifest.variants[0], tmp_path / "cache" / "model.onnx")
    assert not partial.exists()


def test_a_named_pipe_in_a_repository_holds_up_nobody(tmp_path: Path) -> None:
    import os

    publish_draft(str(tmp_path / "repository"), tmp_path / "drafts")
    path = tmp_path / "repository/models/digits/101/model.onnx"
    path.unlink()
    os.mkfifo(path)
    repository = Repository.open(str(tmp_path / "repository"))
    _, manifest = repository.current_manifest("digits")
    with pytest.raises(UserError, match="not a regular file"):
        repository.fetch(manifest, manifest.variants[0], tmp_path / "cache" / "model.onnx")


def test_a_write_that_does_not_fit_is_the_disks_fault(tmp_path: Path) -> None:
    script = (
        "import resource, sys; from pathlib import Path; from edgefolio.files import write_durably\n"
        "from edgefolio.errors import DiskFullError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_durably(Path(sys.argv[1]), bytes(2000), field='--work-dir')\n"
        "except DiskFullError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "x")], capture_output=True, text=True, check=True
    )
    assert "no space left" in done.stdout
    assert list(tmp_path.iterdir()) == []
    write_durably(tmp_path / "x", b"fits")
