"""Errors that a user can mend."""

from __future__ import annotations

import pickle

import pytest

from edgefolio.contract.job_report import FailureReport
from edgefolio.errors import EXIT_BAD_INPUT, EXIT_FAILURE, EdgefolioError, IntegrityError, UserError, out_of_memory


def test_one_line_holds_field_value_problem_and_remedy() -> None:
    error = UserError("it is empty.", field="spec.data.trainingURI", value="x.npz", remedy="Name another file.")
    assert error.one_line() == "spec.data.trainingURI = 'x.npz': it is empty. Name another file."
    assert str(error) == error.one_line()
    assert error.exit_code == EXIT_BAD_INPUT


def test_an_absent_value_is_not_shown_but_an_empty_one_is() -> None:
    assert UserError("p.", field="--a", remedy="R.").one_line() == "--a: p. R."
    assert UserError("p.", field="--a", value="", remedy="R.").one_line() == "--a = '': p. R."
    assert UserError("p.", field="--a", value=0, remedy="R.").value == "0"


def test_a_long_value_is_shortened() -> None:
    value = UserError("p.", field="--a", value="x" * 5000, remedy="R.").value
    assert value is not None
    assert len(value) == 300
    assert value.endswith("…")


def test_corrupt_bytes_are_placed() -> None:
    error = IntegrityError("the digest differs.", location="s3://bucket/models/m/101/model.onnx")
    assert str(error) == "s3://bucket/models/m/101/model.onnx: the digest differs. Publish the revision again."
    assert error.exit_code == EXIT_BAD_INPUT
    assert EdgefolioError("x").exit_code == EXIT_FAILURE


def test_errors_travel_between_processes() -> None:
    user = UserError("p.", field="--a", value="v", remedy="R.")
    again = pickle.loads(pickle.dumps(user))
    assert (again.problem, again.field, again.value, again.remedy) == ("p.", "--a", "v", "R.")
    integrity = pickle.loads(pickle.dumps(IntegrityError("p.", location="l", remedy="R.")))
    assert (integrity.problem, integrity.location, integrity.remedy) == ("p.", "l", "R.")


def test_an_allocation_that_failed_is_bad_input_with_a_remedy() -> None:
    torch = RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: 4 bytes")
    for error in (MemoryError(), torch, RuntimeError("std::bad_alloc")):
        found = out_of_memory(error)
        assert found is not None
        assert "spec.job.resources" in found.remedy
        assert FailureReport.of(error).kind == "BadInput"
    assert out_of_memory(RuntimeError("another")) is None
    assert out_of_memory(UserError("can't allocate memory", field="a", remedy="b")) is None
    assert FailureReport.of(RuntimeError("another")).kind == "Failed"


HOSTILE = "a\x1b[2J\nerror: forged\r\x9b31m\u202e\ud800"


class Endless:
    """What a parser may hand to a message: bounded in itself, without end once it is written out."""

    nested: object = "x"
    for _ in range(40):
        nested = [nested] * 10


@pytest.mark.parametrize(
    "value",
    [
        Endless.nested,
        {"a": Endless.nested, "b": 10**5000},
        10**5000,
        -(10**5000),
        {"a" * 10_000: 1},
        ["a" * 10_000] * 10_000,
        frozenset(range(10_000)),
        b"\x00" * 10_000,
        "a" * 10_000_000,
        HOSTILE * 1000,
        (HOSTILE, {HOSTILE: HOSTILE}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_value_is_shown_in_bounds_and_on_one_line(value: object) -> None:
    error = UserError("p.", field="--a", value=value, remedy="R.")
    assert error.value is not None
    assert len(error.value) <= 300
    assert error.value.isprintable()
    assert error.one_line().isprintable()


def test_every_part_of_an_error_is_printable_and_bounded() -> None:
    long = HOSTILE * 1000
    user, integrity = (
        UserError(long, field=long, value=long, remedy=long),
        IntegrityError(long, location=long, remedy=long),
    )
    for text in (
        user.problem,
        user.field,
        user.remedy,
        str(user),
        integrity.problem,
        integrity.location,
        str(integrity),
    ):
        assert text.isprintable()
        assert len(text) < 3000
    assert "forged" in user.problem


def test_values_that_are_small_are_shown_as_they_are() -> None:
    for value, text in {
        "x.npz": "x.npz",
        5: "5",
        0.5: "0.5",
        True: "True",
        ("a", 1): "('a', 1)",
        10**18: "1000000000000000000",
    }.items():
        assert UserError("p.", field="--a", value=value, remedy="R.").value == text
    assert UserError("p.", field="--a", value={"width": 8}, remedy="R.").value == "{'width': 8}"
