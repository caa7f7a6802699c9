"""The identity of a worker: a key, and a certificate that signs itself.

Peers accept exactly this certificate, so that it needs no authority and no name. The key never leaves its machine.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import secrets
from pathlib import Path

from edgefolio.errors import UserError
from edgefolio.files import make_folder, write_durably, writing

__all__ = ["CERTIFICATE_NAME", "KEY_NAME", "fingerprint", "make_identity"]

CERTIFICATE_NAME, KEY_NAME = "certificate.pem", "key.pem"
#: A node's clock may be behind.
_BACKDATED = datetime.timedelta(days=2)
_VALID = datetime.timedelta(days=3650)


def make_identity(folder: Path, *, field: str = "--make-identity", valid: datetime.timedelta = _VALID) -> str:
    """Make a key (P-256) and its certificate in ``folder``; only its owner may read the key. Returns the fingerprint.

    Raises :class:`UserError` if there is one already, or the folder cannot be written.
    """
    # Installed with the agent; only this function needs it.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    make_folder(folder, field=field)
    for name in (KEY_NAME, CERTIFICATE_NAME):
        if (folder / name).exists():
            raise UserError(
                "there is an identity already.",
                field=field,
                value=folder / name,
                remedy="Use it, or remove it: every set that names its certificate then needs the new one.",
            )
    key = ec.generate_private_key(ec.SECP256R1())
    # OpenSSL finds a certificate that it trusts by this name, so that two of one name would stand in each other's way.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"edgefolio worker {secrets.token_hex(8)}")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + valid)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    previous = os.umask(0o077)
    try:
        write_durably(folder / KEY_NAME, secret, field=field)
    finally:
        os.umask(previous)
    with writing(folder / KEY_NAME, field=field):
        (folder / KEY_NAME).chmod(0o600)
    write_durably(folder / CERTIFICATE_NAME, certificate.public_bytes(serialization.Encoding.PEM), field=field)
    return fingerprint(certificate.public_bytes(serialization.Encoding.DER))


def fingerprint(certificate: bytes) -> str:
    """The SHA-256 of a certificate (DER), as openssl prints it."""
    return ":".join(f"{byte:02X}" for byte in hashlib.sha256(certificate).digest())
