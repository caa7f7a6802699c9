"""A repository over TLS: the certificate is checked, nothing leads away from TLS, credentials go where they belong."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from drafts import publish_draft
from faulty_server import Answer, Exchange, FaultyServer, faulty_server, files_of

from edgefolio.errors import TransientError, UserError
from edgefolio.repository import Repository


def make_certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1, with its key, that nobody has signed but itself."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "models.example")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """A server whose certificate is trusted by the file that ``SSL_CERT_FILE`` names."""
    publish_draft(str(tmp_path / "repository"), tmp_path / "drafts")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(make_certificate(tmp_path / "tls"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls" / "ca.pem"))
    with faulty_server(files_of(tmp_path / "repository"), tls=context) as server:
        yield server


def test_a_trusted_server_is_read(web: FaultyServer) -> None:
    assert Repository.open(web.url).current_manifest("digits")[1].revision == 1


def test_a_certificate_that_is_not_trusted_is_said_and_its_replacement_is_read(
    web: FaultyServer, tmp_path: Path
) -> None:
    trusted = tmp_path / "tls" / "ca.pem"
    right = trusted.read_bytes()
    make_certificate(tmp_path / "other")
    trusted.write_bytes((tmp_path / "other" / "ca.pem").read_bytes())
    with pytest.raises(TransientError, match="its certificate is not accepted"):
        Repository.open(web.url).current("digits")
    trusted.write_bytes(right)
    assert Repository.open(web.url).current("digits") is not None


def test_nothing_leads_from_tls_to_plain_text(web: FaultyServer, tmp_path: Path) -> None:
    with faulty_server(files_of(tmp_path / "repository")) as plain:
        web.fault = lambda exchange: exchange.send(Answer(302, [("Location", plain.url + exchange.path)])) is None
        with pytest.raises(TransientError, match="redirects to http://, which is not followed"):
            Repository.open(web.url).current("digits")
        assert plain.seen == []


def test_credentials_go_to_their_host_alone(web: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str | None] = []

    def asks(exchange: Exchange) -> bool:
        sent.append(exchange.headers.get("Authorization"))
        return sent[-1] is None and exchange.send(Answer(401)) is None

    web.fault = asks
    monkeypatch.setenv("EDGEFOLIO_NETRC", "machine 127.0.0.1 login me password s3cr3t")
    assert Repository.open(web.url).current("digits") is not None
    assert sent == ["Basic " + base64.b64encode(b"me:s3cr3t").decode()]
    monkeypatch.setenv("EDGEFOLIO_NETRC", "machine other.example login me password s3cr3t")
    with pytest.raises(UserError, match=r"HTTP 401.*EDGEFOLIO_NETRC"):
        Repository.open(web.url).current("digits")
    assert sent[-1] is None
    monkeypatch.setenv("EDGEFOLIO_NETRC", "me:s3cr3t")
    with pytest.raises(UserError, match="machine HOST login") as caught:
        Repository.open(web.url).current("digits")
    assert "s3cr3t" not in str(caught.value)
