"""Signatures of manifests: ed25519 in minisign's format.

A manifest names its model, its revision and the digest of every file, so that one signature over its bytes vouches for
a whole revision, and cannot be moved to another model or number. The signature lies beside the manifest, as
``minisign -Sm`` would write it; ``minisign -Vm`` verifies it without Edgefolio.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import minisign

from edgefolio.errors import IntegrityError, UserError
from edgefolio.repository.layout import MAXIMUM_SIGNATURE_BYTES

#: Password of an encrypted signing key.
PASSWORD_VARIABLE = "EDGEFOLIO_SIGNING_PASSWORD"
#: A signing key itself, where there is no file to name: in a Job, from the Secret with the publisher's credentials.
KEY_VARIABLE = "EDGEFOLIO_SIGNING_KEY"
#: Of a path, in letters, and of a public key file, in bytes.
_LONGEST_PATH = 4096
_REMEDY_FOR_READERS = (
    "Ask the publisher for the key of this repository, or have the revision published again with `edgefolio make "
    "--sign`; nothing unsigned is served while a verification key is set."
)


@dataclass(frozen=True)
class VerificationKey:
    """Public key whose signature a manifest must carry."""

    _key: minisign.PublicKey

    @classmethod
    def parse(cls, text: str, *, field: str) -> VerificationKey:
        """The key in ``text``: one line of base64 (``RW...``), or the content of a ``.pub`` file.

        Raises :class:`UserError` for ``field``.
        """
        lines = text.strip().splitlines()
        try:
            return cls(minisign.PublicKey.from_base64(lines[-1].strip().encode("ascii")))
        except (IndexError, UnicodeEncodeError, minisign.Error) as error:
            raise UserError(
                f"this is no ed25519 public key in minisign's format ({error}).",
                field=field,
                value=text.strip()[:80],
                remedy="Take the line that begins with RW from the .pub file of `edgefolio keygen` or `minisign -G`.",
            ) from error

    @property
    def text(self) -> str:
        """The key as one line of base64."""
        return str(self._key.to_base64().decode("ascii"))

    def require(self, content: bytes, signature: bytes | None, *, location: str, what: str = "manifest") -> None:
        """Raise :class:`IntegrityError` unless ``signature`` is this key's over the bytes ``content``."""
        if signature is None:
            raise IntegrityError(f"the {what} is not signed.", location=location, remedy=_REMEDY_FOR_READERS)
        try:
            if len(signature) > MAXIMUM_SIGNATURE_BYTES:
                raise minisign.ParseError(f"larger than {MAXIMUM_SIGNATURE_BYTES} bytes")
            self._key.verify(content, minisign.Signature.from_bytes(signature))
        except minisign.Error as error:
            raise IntegrityError(
                f"the {what}'s signature does not verify with the key {self.text} ({error}).",
                location=location,
                remedy=_REMEDY_FOR_READERS,
            ) from error


@dataclass(frozen=True)
class SigningKey:
    """Secret key of a publisher."""

    _key: minisign.SecretKey

    @classmethod
    def parse(cls, text: bytes, *, field: str, password: str | None = None) -> SigningKey:
        """The key in the content of a secret key file. Raises :class:`UserError`, which shows no part of it."""
        try:
            key = minisign.SecretKey.from_bytes(text.strip())
            if key.is_encrypted():
                if password is None:
                    raise UserError(
                        "the signing key is encrypted.",
                        field=field,
                        remedy=f"Set {PASSWORD_VARIABLE} to its password, or make a key without one.",
                    )
                key.decrypt(password)
        except minisign.Error as error:
            raise UserError(
                f"this is no usable signing key in minisign's format ({error}).",
                field=field,
                remedy="Name the secret key file that `edgefolio keygen` or `minisign -G` wrote.",
            ) from error
        return cls(key)

    @property
    def verification_key(self) -> VerificationKey:
        """The public key that belongs to it."""
        return VerificationKey(minisign.PublicKey.from_secret_key(self._key))

    def sign(self, manifest: bytes, *, comment: str) -> bytes:
        """A signature file over ``manifest``; equal for equal bytes and ``comment``, which is signed with them."""
        signature = self._key.sign(manifest, trusted_comment=comment)
        return bytes(signature) + b"\n"


def signing_key(path: Path | None, *, field: str) -> SigningKey | None:
    """The publisher's key: in the file ``path``, else in the environment; ``None`` for neither.

    Raises :class:`UserError` if it cannot be read.
    """
    password = os.environ.get(PASSWORD_VARIABLE)
    if path is None:
        content = os.environ.get(KEY_VARIABLE)
        return None if not content else SigningKey.parse(content.encode(), field=KEY_VARIABLE, password=password)
    try:
        return SigningKey.parse(path.read_bytes(), field=field, password=password)
    except OSError as error:
        raise UserError(
            f"the signing key cannot be read ({error.strerror}).",
            field=field,
            value=path,
            remedy="Name the secret key file that `edgefolio keygen` or `minisign -G` wrote.",
        ) from error


def publisher_key(path: Path | None, *, verification_key: str | None) -> SigningKey | None:
    """The key that a pruning run signs with, see :func:`signing_key`; it must be the one that readers ask for.

    Raises :class:`UserError` if it is missing or another than ``spec.repository.verificationKey``.
    """
    key = signing_key(path, field="--sign")
    if verification_key is None or (key is not None and key.verification_key.text == verification_key):
        return key
    raise UserError(
        "no signing key was given." if key is None else f"the signing key belongs to {key.verification_key.text}.",
        field="spec.repository.verificationKey",
        value=verification_key,
        remedy=f"Sign with its secret key: `edgefolio make --sign FILE`, in a cluster {KEY_VARIABLE} in the Secret of "
        "repository.secretRef; or name the public key of the one that is given.",
    )


def new_key_pair() -> tuple[bytes, bytes]:
    """A new random pair without a password: the contents of a secret and of a public key file."""
    pair = minisign.KeyPair.generate()
    return bytes(pair.secret_key) + b"\n", bytes(pair.public_key) + b"\n"


def parsed_key(text: str | None, *, field: str) -> VerificationKey | None:
    """The key in ``text``, if any; see :meth:`VerificationKey.parse`."""
    return None if text is None else VerificationKey.parse(text, field=field)


def key_from_option(value: str | None, *, field: str = "--verification-key") -> VerificationKey | None:
    """The key that a user named on the command line: the key itself, or a file with it."""
    if value is not None and len(value) < _LONGEST_PATH:
        path = Path(value)
        try:
            if path.is_file():
                with path.open("rb") as stream:
                    value = stream.read(_LONGEST_PATH).decode("utf-8", errors="replace")
        except OSError as error:
            raise UserError(
                f"the public key cannot be read ({error.strerror}).",
                field=field,
                value=path,
                remedy="Name the .pub file of `edgefolio keygen` or `minisign -G`, or its line that begins with RW.",
            ) from error
    return parsed_key(value, field=field)
