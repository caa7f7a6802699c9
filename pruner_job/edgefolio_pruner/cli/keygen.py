"""``edgefolio keygen``."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from edgefolio.errors import EXIT_OK, UserError


def keygen(
    name: Path = typer.Argument(Path("edgefolio"), help="Where to write: NAME.key and NAME.pub."),
) -> int:
    """Make a key pair to sign revisions with: NAME.key is secret, NAME.pub is for those who serve.

    The format is minisign's; a key of `minisign -G` serves as well.

    Example: edgefolio keygen release && edgefolio make -f examples/digits.yaml --sign release.key
    """
    from edgefolio.repository.signature import VerificationKey, new_key_pair

    secret_file, public_file = name.with_name(name.name + ".key"), name.with_name(name.name + ".pub")
    secret, public = new_key_pair()
    for path, content, mode in ((secret_file, secret, 0o600), (public_file, public, 0o644)):
        try:
            # A key that is overwritten is lost, with every repository that asks for it.
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
                stream.write(content)
        except OSError as error:
            raise UserError(
                f"the key cannot be written ({error.strerror}).",
                field="NAME",
                value=path,
                remedy="Choose another name, or remove the old pair if nobody needs it.",
            ) from error
    key = VerificationKey.parse(public.decode(), field="NAME").text
    typer.echo(f"secret key: {secret_file} (keep it, and keep it private)")
    typer.echo(f"public key: {public_file}")
    typer.echo("for whoever serves the model:")
    typer.echo(f"  spec.repository.verificationKey: {key}")
    return EXIT_OK
