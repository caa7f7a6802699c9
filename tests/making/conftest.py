"""The real command line in processes of its own, without paying for torch's import each time.

One helper process imports everything once and forks a child per command. The child runs ``edgefolio ...`` as a user's
shell would: its own exit code, output, working directory, and it can be killed at any instant.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

# The S3 server of the tests beside these.
from s3_server import s3_endpoint, s3_uri

__all__ = ["s3_endpoint", "s3_uri"]

FORK_SERVER = """
import json, os, resource, signal, sys, time, traceback
import torch, timm, sklearn.datasets, onnxruntime, matplotlib.figure
torch.set_num_threads(1)
import edgefolio.commands.main, edgefolio_pruner.cli.make, edgefolio_pruner.pipeline
import edgefolio_edge.models.repository_audit, edgefolio_pruner.job
import edgefolio_pruner.work.background_sync, edgefolio_pruner.stages.partial_run
from edgefolio_pruner.architectures import cnn
from edgefolio_pruner.export import export_onnx
from edgefolio_pruner.html_report import write_report
from edgefolio_pruner.spatial import compress, capture
import pathlib, tempfile
with tempfile.TemporaryDirectory() as folder:
    # The first use of torch.export and of the exporter imports much more.
    example = (torch.zeros(2, 1, 8, 8),)
    net = cnn(in_channels=1, width=8).eval()
    export_onnx(compress(capture(net, example)).module, example, pathlib.Path(folder, "m.onnx"),
                input_names=["input"], output_names=["output"])
print("ready", flush=True)
for line in sys.stdin:
    request = json.loads(line)
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.chdir(request["cwd"])
            os.environ.update(request["environment"])
            if request["largest_file"]:
                resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest_file"],) * 2)
            try:
                if request["arguments"][0] == "job":
                    sys.exit(edgefolio_pruner.job.main(request["arguments"][1:]))
                edgefolio.commands.main.main(request["arguments"])
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush(); sys.stderr.flush()
            os._exit(code)
    if request["kill_after"] is not None:
        time.sleep(request["kill_after"])
        os.kill(child, request["signal"])
    _, status = os.waitpid(child, 0)
    print(json.dumps({"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - started}), flush=True)
os._exit(0)
"""


@dataclass(frozen=True)
class Finished:
    """A command that ended: its exit code (negative: the signal that killed it) and what it wrote."""

    code: int
    seconds: float
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """Standard output as the one JSON object that it must be."""
        found: dict[str, Any] = json.loads(self.stdout)
        return found


class CommandLine:
    """Runs ``edgefolio`` with arguments; ``job`` as the first one runs ``python -m edgefolio_pruner.job``."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder

    def __call__(
        self,
        *arguments: object,
        cwd: Path | None = None,
        kill_after: float | None = None,
        signal: int = signal.SIGKILL,
        largest_file: int = 0,
        environment: dict[str, str] | None = None,
    ) -> Finished:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        stdout, stderr = self._folder / "stdout", self._folder / "stderr"
        request = {
            "arguments": [str(argument) for argument in arguments],
            "cwd": str(cwd or self._folder),
            "kill_after": kill_after,
            "signal": int(signal),
            "largest_file": largest_file,
            "environment": environment or {},
            "stdout": str(stdout),
            "stderr": str(stderr),
        }
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        return Finished(
            code=answer["code"], seconds=answer["seconds"], stdout=stdout.read_text(), stderr=stderr.read_text()
        )


@pytest.fixture(scope="session")
def edgefolio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """The command line, forked from a process that has everything imported."""
    folder = tmp_path_factory.mktemp("command-line")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache"), "COLUMNS": "200"}
    process = subprocess.Popen(
        [sys.executable, "-c", FORK_SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        yield CommandLine(process, folder)
        process.stdin.close()
        process.wait(timeout=30)
        process.stdout.close()
    finally:
        process.kill()
        process.wait()


def smallest_portfolio() -> dict[str, Any]:
    """A ModelPortfolio that is made in a few seconds, by both routes."""
    return {
        "apiVersion": "edgefolio.dev/v1alpha1",
        "kind": "ModelPortfolio",
        "metadata": {"name": "digits"},
        "spec": {
            "source": {
                "architecture": {"library": "edgefolio", "name": "cnn", "options": {"in_channels": 1, "width": 16}}
            },
            "data": {
                "trainingURI": "builtin:digits",
                "validationPercent": 20,
                "testPercent": 20,
                "calibrationSamples": 256,
            },
            "methods": {
                "sparseTraining": {
                    "denseEpochs": 2,
                    "levels": 1,
                    "epochsPerLevel": 1,
                    "prunePercent": 70,
                    "augmentation": "None",
                },
                "oneShot": {"macsPercent": [40]},
            },
            "profiling": {"batchSizes": [1, 8], "samples": 20, "rounds": 2},
            "repository": {"uri": "./portfolios"},
            "serving": {"modelName": "digits"},
        },
    }


@pytest.fixture
def portfolio_file(tmp_path: Path) -> Callable[..., Path]:
    """``portfolio_file(change)``: the smallest portfolio, after ``change`` of its document, as a file."""

    def write(change: Callable[[dict[str, Any]], object] = lambda document: None) -> Path:
        document = smallest_portfolio()
        change(document)
        path = tmp_path / "portfolio.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return write


@dataclass(frozen=True)
class Made:
    """A portfolio that was made: what the command said, and where everything lies."""

    finished: Finished
    folder: Path

    @property
    def repository(self) -> Path:
        """The repository's directory."""
        return self.folder / "portfolios"

    @property
    def work(self) -> Path:
        """The work directory."""
        return self.folder / "work"


@pytest.fixture(scope="session")
def made(edgefolio: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The smallest portfolio, made once for all tests that only look at it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "portfolio.yaml").write_text(yaml.safe_dump(smallest_portfolio()))
    finished = edgefolio("make", "-f", "portfolio.yaml", "--work-dir", "work", "--json", cwd=folder)
    assert finished.code == 0, finished.stderr
    return Made(finished=finished, folder=folder)
