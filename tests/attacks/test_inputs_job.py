"""Bad input in a Job: it ends with the code that Kubernetes does not try again, and says what to mend in 4096 bytes."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from limited_process import run_limited

from edgefolio.commands.main import main
from edgefolio.contract.job_report import LARGEST_MESSAGE_BYTES, FailureReport, report_of_message
from edgefolio.errors import EXIT_BAD_INPUT, UserError
from edgefolio_pruner.model_source.loading import read_weights

MEMORY = 700 << 20
# One pod a file, in one process.
JOBS = """
import os, sys, torch, timm, sklearn.datasets, onnxruntime
from pathlib import Path
from edgefolio_pruner import job, pipeline
from edgefolio.specification import DataSpecification
from edgefolio_pruner.data import load_data
load_data(DataSpecification(training_uri="builtin:digits"), seed=0)
torch.set_num_threads(1)
#limit
for path in sys.argv[1:]:
    os.environ["EDGEFOLIO_TERMINATION_MESSAGE"] = path + ".message"
    code = job.main([path, path + ".work"])
    Path(path + ".code").write_text(str(code))
"""
DOCUMENT: dict[str, Any] = {
    "apiVersion": "edgefolio.dev/v1alpha1",
    "kind": "ModelPortfolio",
    "metadata": {"name": "digits"},
    "spec": {
        "source": {"architecture": {"library": "edgefolio", "name": "cnn", "options": {"in_channels": 1}}},
        "data": {"trainingURI": "builtin:digits"},
        "methods": {"sparseTraining": {"levels": 1}},
        "repository": {"uri": "./portfolios"},
        "serving": {"modelName": "digits"},
    },
}
GREEDY = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)

    def forward(self, x):
        %s
        return self.layer(x.flatten(1))

def build():
    return Net()

def build_greedy():
    bytearray(1 << 40)
"""


def portfolio(**changes: Any) -> str:
    return yaml.safe_dump({**DOCUMENT, "spec": {**DOCUMENT["spec"], **changes}})


def data_file(folder: Path) -> str:
    size = (10**6, 1, 1000, 1000)
    np.savez(folder / "data.npz", y=np.arange(40) % 4)
    header = repr({"descr": "|u1", "fortran_order": False, "shape": size}).encode() + b"\n"
    with zipfile.ZipFile(folder / "data.npz", "a") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    return portfolio(data={"trainingURI": str(folder / "data.npz")})


def zeros_file(folder: Path) -> str:
    np.savez_compressed(folder / "zeros.npz", x=np.zeros((300, 1, 1024, 1024), np.uint8), y=np.arange(300) % 4)
    return portfolio(data={"trainingURI": str(folder / "zeros.npz")})


def picture(folder: Path) -> str:
    (folder / "pictures" / "a\x1b[2J\"'\\").mkdir(parents=True)
    (folder / "pictures" / "a\x1b[2J\"'\\" / "1.png").write_bytes(b"\x89PNG")
    return portfolio(data={"trainingURI": str(folder / "pictures")})


def weights(content: bytes) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        (folder / "weights.safetensors").write_bytes(content)
        return portfolio(source={**DOCUMENT["spec"]["source"], "weightsURI": str(folder / "weights.safetensors")})

    return write


def factory(name: str, *, line: str = "pass") -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        module = f"greedy_{abs(hash((name, line)))}"
        (folder / f"{module}.py").write_text(GREEDY % line)
        return portfolio(source={"architecture": {"library": "factory", "name": f"{module}:{name}"}})

    return write


ALIASES = "b0: &b0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"b{n}: &b{n} [{','.join([f'*b{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
ESCAPES = {"library": "edgefolio", "name": "cnn", "options": {"in_channels": "\x1b[2J"}}
# What is written for the Job, and the field that its report names.
CASES: dict[str, tuple[Callable[[Path], str], str]] = {
    "aliases in the file": (lambda _: f"{ALIASES}apiVersion: edgefolio.dev/v1alpha1\nkind: *b9\n", "-f"),
    "no file": (lambda _: "", "kind"),
    "a size that no machine has": (data_file, "spec.data.trainingURI"),
    "zeros": (zeros_file, "spec.data.trainingURI"),
    "a damaged picture in an odd folder": (picture, "spec.data.trainingURI"),
    "a device as data": (lambda _: portfolio(data={"trainingURI": "/dev/zero"}), "spec.data.trainingURI"),
    "a device as weights": (
        lambda _: portfolio(source={**DOCUMENT["spec"]["source"], "weightsURI": "/dev/zero"}),
        "spec.source.weightsURI",
    ),
    "weights with a long header": (
        weights(struct.pack("<Q", 90 << 20) + b"{" + b" " * ((90 << 20) - 2) + b"}"),
        "spec.source.weightsURI",
    ),
    "an address of 4000 odd characters": (
        lambda _: portfolio(data={"trainingURI": "/nowhere/" + '"\\é' * 300}),
        "spec.data.trainingURI",
    ),
    "a width that no machine holds": (
        lambda _: portfolio(
            source={
                "architecture": {"library": "edgefolio", "name": "cnn", "options": {"in_channels": 1, "width": 10**7}}
            }
        ),
        "spec.source.architecture.options",
    ),
    "escapes in an option": (lambda _: portfolio(source={"architecture": ESCAPES}), "spec"),
    "a callable that takes all memory": (factory("build_greedy"), "spec.source.architecture"),
    "a network that takes all memory": (factory("build", line="torch.empty(1 << 40)"), ""),
    "a network whose code takes all memory": (factory("build", line="bytearray(1 << 40)"), ""),
}


def test_the_job_ends_with_the_code_of_bad_input_and_a_report_that_can_be_read(tmp_path: Path) -> None:
    paths = []
    for number, (write, _) in enumerate(CASES.values()):
        path = tmp_path / f"{number}.json"
        path.write_text(write(tmp_path))
        paths.append(path)
    finished = run_limited(JOBS, *paths, memory=MEMORY, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr[-3000:]
    for (case, (_, field)), path in zip(CASES.items(), paths, strict=True):
        message = Path(f"{path}.message").read_bytes()
        report = report_of_message(message.decode())
        assert isinstance(report, FailureReport), (case, message)
        assert (Path(f"{path}.code").read_text(), report.kind) == (str(EXIT_BAD_INPUT), "BadInput"), (case, report)
        assert field in report.field, (case, report)
        assert field != "spec" or "control characters" in report.problem, (case, report)
        assert report.remedy.endswith("."), (case, report)
        assert len(message) <= LARGEST_MESSAGE_BYTES, case
        assert report.one_line().isprintable(), case
    for line in finished.stdout.splitlines():
        assert isinstance(json.loads(line), dict)


def safetensors_file(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@settings(max_examples=200, deadline=None)
@given(
    dtype=st.sampled_from(["F32", "F16", "F64", "BOOL", "C64", "F8_E4M3", "F4", "I64", "U16", "\x1b[2J"]),
    shape=st.lists(st.sampled_from([0, 1, 2, 2**31, 2**62, -1, 10**30]), max_size=5),
    offsets=st.tuples(st.integers(-1, 2**63), st.integers(-1, 2**63)) | st.just((0, 8)),
    body=st.binary(max_size=16),
    cut=st.integers(0, 400),
)
def test_any_header_of_weights_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    dtype: str,
    shape: list[int],
    offsets: tuple[int, int],
    body: bytes,
    cut: int,
) -> None:
    path = tmp_path_factory.getbasetemp() / f"weights-{os.getpid()}"
    content = safetensors_file({"a\x1b[2J": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}, body)
    for given_bytes in (content, content[:cut]):
        path.write_bytes(given_bytes)
        try:
            state = read_weights(path, field="--weights")
        except UserError as error:
            refusal = str(error)
        else:
            refusal = "" if set(state) <= {"a\x1b[2J"} else "\n"
        assert refusal.isprintable()


@pytest.mark.parametrize(
    "shape", ["", "0,8,8", "-1,8,8", "9" * 5000, "1,99999999999999999999", ",".join("1" * 9), "1e9", "٣x"]
)
def test_a_shape_of_any_numbers_is_refused(shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["shrink", "--architecture", "edgefolio:cnn", "--weights", "w", "-o", "o.onnx", "--input-shape", shape]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == EXIT_BAD_INPUT
    assert "this is no shape" in capsys.readouterr().err


def test_an_input_that_no_memory_holds_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["shrink", "--architecture", "edgefolio:cnn", "--weights", "w", "-o", "o.onnx"]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--input-shape", "1,1000000,1000000"])
    assert ended.value.code == EXIT_BAD_INPUT
    assert "of memory" in capsys.readouterr().err
