"""Address, CA and credentials of the API server, from a pod's service account or a kubeconfig.

Files are reread when they change: tokens are renewed every hour or so, certificate authorities are rotated, and a
process that keeps what it read at its start is cut off then.
"""

from __future__ import annotations

import base64
import logging
import os
import ssl
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edgefolio.contract.pod import TOKEN_MOUNT
from edgefolio.errors import UserError

logger = logging.getLogger(__name__)

SERVICE_ACCOUNT = Path(TOKEN_MOUNT)


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Credentials of one request; ``tls`` is ``None`` for plain HTTP, ``files`` are where they were read."""

    server: str
    namespace: str
    tls: ssl.SSLContext | None
    token: str | None
    files: tuple[Path, ...] = ()

    @property
    def headers(self) -> dict[str, str]:
        """The header that authenticates a request, if a token does."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


class Access:
    """The current :class:`Credentials`; safe to use from several threads."""

    def __init__(self, load: Callable[[], Credentials]) -> None:
        self._load = load
        self._loaded = self._read()

    @classmethod
    def found(cls, environment: Mapping[str, str] = os.environ, *, account: Path = SERVICE_ACCOUNT) -> Access:
        """Access by the pod's service account, or ``KUBECONFIG`` or ``~/.kube/config``.

        Raises :class:`UserError` if there is neither, or if the kubeconfig cannot be used.
        """
        if (account / "token").exists():
            return cls(lambda: _of_service_account(account, environment))
        path = Path(environment.get("KUBECONFIG") or Path.home() / ".kube" / "config")
        if not path.exists():
            raise UserError(
                "there is no service account, and no kubeconfig.",
                field="KUBECONFIG",
                value=str(path),
                remedy="Run in a pod with its service account, or name a kubeconfig.",
            )
        return cls.of_kubeconfig(path)

    @classmethod
    def of_kubeconfig(cls, path: Path) -> Access:
        """Access by the current context of ``path``. Raises :class:`UserError` if unusable."""
        try:
            return cls(lambda: _of_kubeconfig(path))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError) as error:
            problem = f"it cannot be read ({type(error).__name__}: {error})."
            raise UserError(problem, field="KUBECONFIG", value=str(path), remedy="Correct the file.") from error

    def current(self) -> Credentials:
        """The credentials, reread if a file of theirs changed.

        An unreadable file (one being written) is tried again at the next call; until then the last
        credentials stand.
        """
        signature, credentials = self._loaded
        if _signature(credentials.files) == signature:
            return credentials
        try:
            self._loaded = self._read()
        except (OSError, ValueError, LookupError, TypeError, AttributeError, UserError, yaml.YAMLError) as error:
            logger.warning("the changed credentials cannot be read yet: %s", error)
        return self._loaded[1]

    @property
    def namespace(self) -> str:
        """The namespace of the pod or of the kubeconfig's context."""
        return self.current().namespace

    def _read(self) -> tuple[object, Credentials]:
        signature = _signature(self._load().files)
        # Read after the signature was taken: a file that changes meanwhile is read again by the next call.
        return signature, self._load()


def _of_service_account(folder: Path, environment: Mapping[str, str]) -> Credentials:
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment["KUBERNETES_SERVICE_PORT"]
    files = tuple(folder / name for name in ("token", "ca.crt", "namespace"))
    token, authority, namespace = files
    return Credentials(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        namespace=namespace.read_text().strip() if namespace.exists() else "default",
        tls=ssl.create_default_context(cafile=str(authority)),
        token=token.read_text().strip(),
        files=files,
    )


def _of_kubeconfig(path: Path) -> Credentials:
    document = yaml.safe_load(path.read_text())
    context = _named(document, "contexts", document.get("current-context") or "")["context"]
    cluster = _named(document, "clusters", context["cluster"])["cluster"]
    user = _named(document, "users", context["user"])["user"] or {}
    if plugin := {"exec", "auth-provider"} & user.keys():
        raise UserError(
            "login plug-ins are not supported.",
            field=f"users[{context['user']}].{min(plugin)}",
            remedy="Use a token or a client certificate.",
        )
    files = {key: path.parent / value for key, value in _file_entries({**cluster, **user})}
    token = user.get("token")
    if token is None and "tokenFile" in files:
        token = files["tokenFile"].read_text().strip()
    server = str(cluster["server"])
    return Credentials(
        server=server.rstrip("/"),
        namespace=context.get("namespace") or "default",
        tls=_tls(cluster, user, files) if server.startswith("https:") else None,
        token=token,
        files=(path, *files.values()),
    )


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any], files: Mapping[str, Path]) -> ssl.SSLContext:
    authority = cluster.get("certificate-authority-data")
    tls = ssl.create_default_context(
        cafile=None if authority else files.get("certificate-authority"),
        cadata=base64.b64decode(authority).decode() if authority else None,
    )
    if "client-certificate-data" in user:
        with tempfile.NamedTemporaryFile() as pem:
            for name in ("client-certificate", "client-key"):
                data = user.get(f"{name}-data")
                pem.write(base64.b64decode(data) if data else files[name].read_bytes())
                pem.write(b"\n")
            pem.flush()
            tls.load_cert_chain(pem.name)
    elif "client-certificate" in files:
        tls.load_cert_chain(files["client-certificate"], files["client-key"])
    return tls


def _file_entries(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in ("certificate-authority", "client-certificate", "client-key", "tokenFile"):
        if document.get(key):
            yield key, document[key]


def _named(document: Mapping[str, Any], kind: str, name: str) -> dict[str, Any]:
    for entry in document.get(kind) or ():
        if entry["name"] == name:
            found: dict[str, Any] = entry
            return found
    raise UserError("the kubeconfig names nothing of this name.", field=kind, value=name, remedy="Correct the file.")


def _signature(files: tuple[Path, ...]) -> object:
    """Changes with every file; a projected volume swaps a symbolic link."""
    found = []
    for file in files:
        try:
            status = file.stat()
            found.append((status.st_ino, status.st_dev, status.st_size, status.st_mtime_ns))
        except OSError:
            found.append((0, 0, 0, 0))
    return tuple(found)
