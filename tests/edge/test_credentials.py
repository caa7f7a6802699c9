"""Credentials of the object store as files: what is mended or rotated is read without a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefolio.repository.remote.http_storage import NETRC_VARIABLE
from edgefolio_edge.cluster.credentials import MountedCredentials


def put(directory: Path, **values: str) -> None:
    for name, value in values.items():
        (directory / name).write_text(value)


def test_a_rotated_secret_is_taken_and_what_is_gone_goes(tmp_path: Path) -> None:
    environment = {"AWS_ACCESS_KEY_ID": "of the start", "PATH": "/bin"}
    credentials = MountedCredentials(tmp_path, environment=environment)
    put(tmp_path, AWS_ACCESS_KEY_ID="first", AWS_SESSION_TOKEN="token")
    credentials.take()
    assert environment == {"AWS_ACCESS_KEY_ID": "first", "AWS_SESSION_TOKEN": "token", "PATH": "/bin"}
    put(tmp_path, AWS_ACCESS_KEY_ID="second")
    (tmp_path / "AWS_SESSION_TOKEN").unlink()
    credentials.take()
    assert environment == {"AWS_ACCESS_KEY_ID": "second", "PATH": "/bin"}


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", NETRC_VARIABLE, "NETRC"])
def test_credentials_of_each_kind_of_store_are_taken(tmp_path: Path, name: str) -> None:
    environment = {name: "of the start"}
    put(tmp_path, **{name: "rotated"})
    MountedCredentials(tmp_path, environment=environment).take()
    assert environment == {name: "rotated"}


@pytest.mark.parametrize(
    "name",
    [
        "EDGEFOLIO_SIGNING_KEY",
        "EDGEFOLIO_NETRC_FILE",
        "POD_NAME",
        "PATH",
        "HOME",
        "LD_PRELOAD",
        "PYTHONPATH",
        "..data",
        "lower",
        "A=B",
    ],
)
def test_a_secret_changes_nothing_but_credentials(tmp_path: Path, name: str) -> None:
    environment = {"PATH": "/bin"}
    put(tmp_path, **{name: "x"})
    MountedCredentials(tmp_path, environment=environment).take()
    assert environment == {"PATH": "/bin"}


@pytest.mark.parametrize("content", [b"a\0b", b"\xff\xfe"])
def test_what_no_variable_can_hold_is_left_out(tmp_path: Path, content: bytes) -> None:
    environment: dict[str, str] = {}
    (tmp_path / "AWS_ACCESS_KEY_ID").write_bytes(content)
    MountedCredentials(tmp_path, environment=environment).take()
    assert environment == {}


def test_without_a_secret_the_variables_of_the_start_count(tmp_path: Path) -> None:
    environment = {"AWS_ACCESS_KEY_ID": "a"}
    for directory in (None, tmp_path / "absent", tmp_path):
        MountedCredentials(directory, environment=environment).take()
    assert environment == {"AWS_ACCESS_KEY_ID": "a"}
