"""Weights and data by URI: answers told apart as those of repositories are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from faulty_server import FaultyServer, faulty_server, files_of, in_front_of, status

from edgefolio.errors import TransientError, UserError
from edgefolio.repository.storage import open_storage
from edgefolio_pruner.data.readers.image_folder import is_folder
from edgefolio_pruner.uris import read_uri

CONTENT = os.urandom(3_000_000)
FIELD = "spec.source.weightsURI"


@pytest.fixture(params=["https", "s3"])
def served(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """A server with the file ``weights``; ``server.uri`` is the folder."""
    monkeypatch.setattr("edgefolio.repository.remote.s3_storage._CONFIGURATION", {"retries": {"total_max_attempts": 1}})
    if request.param == "s3":
        uri: str = request.getfixturevalue("s3_uri")
        open_storage(uri, field="uri").write("weights", CONTENT)
        with faulty_server(in_front_of(request.getfixturevalue("s3_endpoint"))) as server:
            monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
            server.uri = uri  # type: ignore[attr-defined]
            yield server
        return
    (tmp_path / "weights").write_bytes(CONTENT)
    with faulty_server(files_of(tmp_path)) as server:
        server.uri = server.url  # type: ignore[attr-defined]
        yield server


def test_what_is_there_is_read(served: FaultyServer) -> None:
    assert read_uri(f"{served.uri}/weights", field=FIELD) == CONTENT  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("code", "s3_code", "words", "passing"),
    [
        (404, "NoSuchKey", "there is no such file", False),
        (403, "AccessDenied", "refuses access", False),
        (503, "SlowDown", "503", True),
        (500, "InternalError", "500", True),
    ],
)
def test_what_is_not_given_is_told_apart(
    served: FaultyServer, code: int, s3_code: str, words: str, passing: bool
) -> None:
    is_s3 = served.uri.startswith("s3:")  # type: ignore[attr-defined]
    served.fault = lambda exchange: exchange.method == "GET" and status(code, s3_code if is_s3 else None)(exchange)
    with pytest.raises(UserError, match=words) as caught:
        read_uri(f"{served.uri}/weights", field=FIELD)  # type: ignore[attr-defined]
    assert caught.value.field == FIELD
    assert isinstance(caught.value, TransientError) == passing


def test_a_query_is_part_of_the_address(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"w")
    with faulty_server(files_of(tmp_path)) as server:
        asked: list[str] = []
        server.fault = lambda exchange: asked.append(exchange.handler.path) is not None
        assert read_uri(f"{server.url}/weights?version=2", field=FIELD) == b"w"
        assert asked == ["/weights?version=2"]


def test_local_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my weights").write_bytes(b"w")
    monkeypatch.chdir(tmp_path)
    for name in ("my weights", tmp_path / "my weights", f"file://{tmp_path}/my weights", "./my weights"):
        assert read_uri(name, field=FIELD) == b"w"
    with pytest.raises(UserError, match="no such file"):
        read_uri(tmp_path / "absent", field=FIELD)
    with pytest.raises(UserError, match="cannot be read"):
        read_uri(tmp_path, field=FIELD)


@pytest.mark.parametrize("uri", ["nosuch://host/x", "pvc:claim", "", "simplecache::https://h/x", "file://host/x"])
def test_nonsense_is_the_users_error(uri: str) -> None:
    with pytest.raises(UserError, match=FIELD):
        read_uri(uri, field=FIELD)


def test_a_folder_of_a_store_in_trouble_is_no_missing_file(
    s3_uri: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    open_storage(s3_uri, field="uri").write("pictures/cat/1.png", b"no picture")
    uri = f"{s3_uri}/pictures"
    with faulty_server(in_front_of(s3_endpoint)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        fsspec.config.conf["s3"] = {"skip_instance_cache": True, "use_listings_cache": False}
        try:
            assert is_folder(uri, field=FIELD)
            assert not is_folder(f"{s3_uri}/absent", field=FIELD)
            server.fault = status(500, "InternalError")
            with pytest.raises(TransientError, match="cannot be listed"):
                is_folder(uri, field=FIELD)
            # Who may not list may still read a file by its name.
            server.fault = status(403, "AccessDenied")
            assert not is_folder(uri, field=FIELD)
        finally:
            del fsspec.config.conf["s3"]
