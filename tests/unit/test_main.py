"""The command line as a user meets it: help, versions, mistakes, exit codes."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import typer

from edgefolio import __version__
from edgefolio.commands import main as command_line
from edgefolio.errors import EdgefolioError, IntegrityError, UserError


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        command_line.main(list(arguments))
    captured = capsys.readouterr()
    code = caught.value.code
    assert isinstance(code, int)
    return code, captured.out, captured.err


class Point(EntryPoint):
    """An entry point whose function is at hand."""

    function: Callable[..., Any]

    def load(self) -> Any:
        return self.function


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``commands(name=function)``: these and no others are installed."""

    def install(**functions: Callable[..., Any]) -> None:
        points = []
        for name, function in functions.items():
            point = Point(name=name, value="somewhere:function", group=command_line.COMMAND_GROUP)
            vars(point)["function"] = function
            points.append(point)
        monkeypatch.setattr(command_line, "entry_points", lambda group: points)

    return install


def raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        """Fail."""
        raise error

    return command


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "--version") == (0, f"edgefolio {__version__}\n", "")


def test_help_lists_every_installed_command_in_the_order_of_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "--help")
    assert (code, err) == (0, "")
    installed = {point.name for point in importlib.metadata.entry_points(group=command_line.COMMAND_GROUP)}
    places = [re.search(rf"│ {name} ", out) for name in command_line.COMMAND_ORDER if name in installed]
    assert all(place is not None for place in places)
    positions = [place.start() for place in places if place is not None]
    assert positions == sorted(positions)
    assert installed <= set(command_line.COMMAND_ORDER)


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys)
    assert code in (0, 2)
    assert "Usage" in out + err


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for point in importlib.metadata.entry_points(group=command_line.COMMAND_GROUP):
        code, out, _ = call(capsys, point.name, "--help")
        assert code == 0, point.name
        assert f"edgefolio {point.name}" in " ".join(out.split()), "the help should hold an example"


@pytest.mark.parametrize("arguments", [("fly",), ("--nonsense",), ("explain",), ("explain", "-f"), ("replay",)])
def test_a_wrong_call_exits_with_two(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    code, _, err = call(capsys, *arguments)
    assert code == 2
    assert "Traceback" not in err
    assert err


def test_a_users_mistake_is_three_lines(capsys: pytest.CaptureFixture[str], commands: Callable[..., None]) -> None:
    error = UserError("it is [bold]odd[/bold].", field="spec.seed", value="[red]", remedy="Write a number.")
    commands(fail=raising(error), other=raising(error))
    code, out, err = call(capsys, "fail")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "error: it is [bold]odd[/bold].",
        "  field:  spec.seed = [red]",
        "  remedy: Write a number.",
    ]


def test_long_values_are_not_broken_over_lines(
    capsys: pytest.CaptureFixture[str], commands: Callable[..., None]
) -> None:
    error = UserError("p " * 100 + ".", field="--file", value="/" + "long/" * 50, remedy="r " * 80 + ".")
    commands(fail=raising(error), other=raising(error))
    assert len(call(capsys, "fail")[2].splitlines()) == 3


def test_corrupt_bytes_name_their_place(capsys: pytest.CaptureFixture[str], commands: Callable[..., None]) -> None:
    error = IntegrityError("the digest differs.", location="s3://b/m.onnx")
    commands(fail=raising(error), other=raising(error))
    code, _, err = call(capsys, "fail")
    assert code == 2
    assert err.splitlines()[1] == "  where:  s3://b/m.onnx"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EdgefolioError("it did not work"), 1),
        (typer.Exit(3), 3),
        (KeyboardInterrupt(), 130),
        (typer.BadParameter("no"), 2),
    ],
)
def test_exit_codes(
    capsys: pytest.CaptureFixture[str], commands: Callable[..., None], error: BaseException, code: int
) -> None:
    commands(fail=raising(error), other=raising(error))
    assert call(capsys, "fail")[0] == code


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (3, 3)])
def test_what_a_command_returns_is_the_exit_code(
    capsys: pytest.CaptureFixture[str], commands: Callable[..., None], returned: object, code: int
) -> None:
    def command() -> object:
        """Return."""
        return returned

    commands(answer=command, other=command)
    assert call(capsys, "answer")[0] == code


def test_a_bug_keeps_its_traceback(commands: Callable[..., None]) -> None:
    commands(fail=raising(ZeroDivisionError("a bug")), other=raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        command_line.main(["fail"])


def test_a_missing_extra_is_named(capsys: pytest.CaptureFixture[str], commands: Callable[..., None]) -> None:
    room: dict[str, Any] = {"__name__": "edgefolio_pruner.somewhere"}
    exec('def command():\n    """Fail."""\n    import a_package_that_is_nowhere\n', room)
    commands(fail=room["command"], other=room["command"])
    code, _, err = call(capsys, "fail")
    assert code == 1
    assert "a_package_that_is_nowhere" in err
    assert "pip install 'edgefolio[pruner]'" in err


def test_a_missing_package_of_nobody_is_a_bug(commands: Callable[..., None]) -> None:
    commands(fail=raising(ModuleNotFoundError("No module named 'x'", name="x")), other=raising(OSError()))
    with pytest.raises(ModuleNotFoundError):
        command_line.main(["fail"])


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    script = (
        "import sys\n"
        "from edgefolio.commands.main import build_app\n"
        "build_app()\n"
        "heavy = {'torch', 'onnxruntime', 'onnx', 'timm', 'scipy', 'sklearn', 'matplotlib', 'tritonclient'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
