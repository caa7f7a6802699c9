"""Errors that a user can mend."""

from __future__ import annotations

import pickle

from edgefolio.errors import EXIT_BAD_INPUT, EXIT_FAILURE, EdgefolioError, IntegrityError, UserError


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
