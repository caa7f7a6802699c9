"""Cached files of a data set that another user wrote: megabytes that unpack to gigabytes, cut off, of other kinds."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from limited_process import run_limited

from edgefolio_pruner.data.readers.fashion_mnist import FILES

# Each cache in turn, with the memory for one file and no more.
LOAD = """
import json, sys
from pathlib import Path
from edgefolio.errors import UserError
from edgefolio_pruner.data.readers import fashion_mnist
fashion_mnist.INSTALLED = Path("nowhere")
#limit
for folder in sys.argv[1:]:
    fashion_mnist.cache_folder = lambda: Path(folder)
    try:
        fashion_mnist.read_fashion_mnist(field="spec.data.trainingURI")
    except UserError as error:
        print(json.dumps([type(error).__name__, error.field, error.problem]))
"""


def bomb() -> bytes:
    """Two GiB of zeros: each member of the file unpacks to 64 MiB."""
    return gzip.compress(bytes(64 << 20), compresslevel=1) * 32


def test_a_cached_file_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    contents = {
        "bomb": bomb(),
        "empty": b"",
        "text": b"hello",
        "cut": gzip.compress(bytes(1000))[:-9],
        "checksum": gzip.compress(bytes(1000))[:-8] + bytes(8),
        "many empty members": gzip.compress(b"") * 100_000,
    }
    for name, content in contents.items():
        (tmp_path / name).mkdir()
        for file in FILES.values():
            (tmp_path / name / file.name).write_bytes(content)
    finished = run_limited(LOAD, *contents, memory=256 << 20, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr[-2000:]
    answers = [json.loads(line) for line in finished.stdout.splitlines()]
    assert len(answers) == len(contents)
    for kind, field, problem in answers:
        assert (kind, field) == ("UserError", "spec.data.trainingURI")
        assert "does not hold Fashion-MNIST" in problem
