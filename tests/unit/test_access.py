"""Access to the API server: what a service account and a kubeconfig say, and that changed files are read anew."""

from __future__ import annotations

import base64
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_api_server import Account, FakeApiServer, make_authorities

from edgefolio.errors import UserError
from edgefolio.kubernetes.access import Access
from edgefolio.kubernetes.sync_client import ApiRefused, ApiUnreachable, SyncClient

THINGS = "/api/v1/namespaces/models/things"


def kubeconfig(folder: Path, server: str, *, cluster: dict[str, Any], user: dict[str, Any], **fields: Any) -> Path:
    """A file whose first entries lead astray: only the current context leads to ``server``."""
    path = folder / "config"
    document = {
        "current-context": "right",
        "contexts": [
            {"name": "wrong", "context": {"cluster": "wrong", "user": "wrong"}},
            {"name": "right", "context": {"cluster": "right", "user": "right", "namespace": "models"}},
        ],
        "clusters": [
            {"name": "wrong", "cluster": {"server": "https://127.0.0.1:1"}},
            {"name": "right", "cluster": {"server": server, **cluster}},
        ],
        "users": [{"name": "wrong", "user": {"token": "wrong"}}, {"name": "right", "user": user}],
        **fields,
    }
    path.write_text(yaml.safe_dump(document))
    return path


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def test_the_current_context_counts(tmp_path: Path) -> None:
    authorities = make_authorities(tmp_path / "authorities")
    with FakeApiServer(THINGS, certificate=(authorities / "old.crt", authorities / "old.key")) as server:
        server.tokens = {"right"}
        cluster = {"certificate-authority-data": encoded(authorities / "old-ca.crt")}
        access = Access.of_kubeconfig(kubeconfig(tmp_path, server.url, cluster=cluster, user={"token": "right"}))
        assert access.namespace == "models"
        assert SyncClient(access).request("GET", THINGS)["items"] == []


@pytest.mark.parametrize("as_data", [True, False])
def test_client_certificates_are_shown(tmp_path: Path, as_data: bool) -> None:
    authorities = make_authorities(tmp_path / "authorities")
    names = {"certificate-authority": "old-ca.crt", "client-certificate": "new.crt", "client-key": "new.key"}
    if as_data:
        entries = {f"{key}-data": encoded(authorities / name) for key, name in names.items()}
    else:
        # Relative to the file, as kubectl reads them.
        entries = {key: os.path.relpath(authorities / name, tmp_path) for key, name in names.items()}
    with FakeApiServer(THINGS, certificate=(authorities / "old.crt", authorities / "old.key")) as server:
        server.client_authority = authorities / "new-ca.crt"
        cluster = {key: value for key, value in entries.items() if "authority" in key}
        user = {key: value for key, value in entries.items() if "client" in key}
        access = Access.of_kubeconfig(kubeconfig(tmp_path, server.url, cluster=cluster, user=user))
        assert SyncClient(access).request("GET", THINGS)["items"] == []
        nobody = Access.of_kubeconfig(kubeconfig(tmp_path, server.url, cluster=cluster, user={}))
        with pytest.raises(ApiUnreachable):
            SyncClient(nobody).request("GET", THINGS)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"current-context": "none"}, "contexts"),
        ({"current-context": None}, "contexts"),
        ({"clusters": []}, "clusters"),
        ({"users": [{"name": "right", "user": {"exec": {"command": "aws"}}}]}, "users[right].exec"),
        ({"contexts": "no list"}, "KUBECONFIG"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_the_users_error(
    tmp_path: Path, fields: dict[str, Any], field: str
) -> None:
    path = kubeconfig(tmp_path, "https://127.0.0.1:1", cluster={}, user={}, **fields)
    with pytest.raises(UserError) as raised:
        Access.of_kubeconfig(path)
    assert raised.value.field == field


def test_without_anything_the_error_names_the_place(tmp_path: Path) -> None:
    environment = {"KUBECONFIG": str(tmp_path / "none")}
    with pytest.raises(UserError, match="none"):
        Access.found(environment, account=tmp_path)


def test_a_rotated_authority_and_token_cut_nobody_off(tmp_path: Path) -> None:
    authorities = make_authorities(tmp_path / "authorities")
    with FakeApiServer(THINGS, certificate=(authorities / "old.crt", authorities / "old.key")) as server:
        account = Account(tmp_path, server)
        account.write(authority=authorities / "old-ca.crt", token="first")
        server.tokens = {"first"}
        access = account.access
        client = SyncClient(access)
        client.request("GET", THINGS)
        assert access.current() is access.current(), "nothing is read again while no file changes"
        account.write(authority=authorities / "old-ca.crt", token="second")
        server.tokens = {"second"}
        client.request("GET", THINGS)
        server.rotate((authorities / "new.crt", authorities / "new.key"))
        with pytest.raises(ApiUnreachable, match="certificate verify failed"):
            client.request("GET", THINGS)
        account.write(authority=authorities / "new-ca.crt", token="third")
        server.tokens = {"third"}
        client.request("GET", THINGS)


def test_files_that_are_half_written_leave_the_last_credentials(tmp_path: Path) -> None:
    authorities = make_authorities(tmp_path / "authorities")
    with FakeApiServer(THINGS, certificate=(authorities / "old.crt", authorities / "old.key")) as server:
        server.tokens = {"first", "second"}
        authority = tmp_path / "ca.crt"
        shutil.copy(authorities / "old-ca.crt", authority)

        def write(token: str) -> Path:
            entries = {"certificate-authority": "ca.crt"}
            return kubeconfig(tmp_path, server.url, cluster=entries, user={"token": token})

        access = Access.of_kubeconfig(write("first"))
        for broken in (b"", b"-----BEGIN CERTIFICATE-----\nhalf"):
            authority.write_bytes(broken)
            assert access.current().token == "first"
            SyncClient(access).request("GET", THINGS)
        authority.unlink()
        assert access.current().token == "first"
        shutil.copy(authorities / "old-ca.crt", authority)
        write("second")
        assert access.current().token == "second"


def test_a_refusal_and_a_cut_link_are_told_apart() -> None:
    with FakeApiServer(THINGS) as server:
        client = SyncClient(server.access)
        with pytest.raises(ApiRefused, match="NotFound by the test") as raised:
            client.request("GET", f"{THINGS}/none")
        assert raised.value.status == 404
        server.put(THINGS, "a")
        client.apply(f"{THINGS}/a", {"kind": "Thing"}, manager="test")
        server.watches = "gone event"
        with pytest.raises(ApiRefused) as raised:
            list(client.watch(THINGS, version="1", seconds=2))
        assert raised.value.status == 410
    with pytest.raises(ApiUnreachable):
        client.request("GET", THINGS)
