"""The set of workers as its operator writes it, one YAML file for all of them, and the set file of one worker of it."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from edgefolio.errors import UserError
from edgefolio.manifest import Manifest, Variant
from edgefolio.untrusted.yaml_document import LARGEST_BYTES, load_yaml
from edgefolio_edge.models.variants import by_size, variant_named
from edgefolio_edge.peers.identity import CERTIFICATE_NAME, KEY_NAME
from edgefolio_worker.protocol.patience import abandon_milliseconds
from edgefolio_worker.records.set_file import Peer, SetError, WorkerSet

__all__ = ["FIELD", "SetDocument"]

FIELD = "--worker-set"
_LARGEST_CERTIFICATE = 16 << 10
_Address = Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]{1,253}):[0-9]{1,5}$")]
_Milliseconds = Annotated[float, Field(gt=0, le=3_600_000)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class DeclaredWorker(_Part):
    """One worker: where its peers reach it, where it listens if that is not the same, and its certificate's file."""

    rank: Annotated[int, Field(ge=0, le=7)]
    address: _Address
    listen: _Address | None = None
    certificate: str | None = None


class SetDocument(_Part):
    """A set: ``number`` is another one whenever anything of it changes that all workers must agree on.

    ``plain_loopback`` lets workers on one machine talk without TLS. ``fallback`` is a variant of one node, by default
    the smallest; ``abandon_milliseconds`` what a job may take before the fallback answers, by default five times the
    prediction and at least 100; ``predicted_milliseconds`` replaces the manifest's prediction for the declared link.
    """

    number: Annotated[int, Field(ge=0, lt=2**32)]
    workers: Annotated[tuple[DeclaredWorker, ...], Field(min_length=2, max_length=8)]
    plain_loopback: bool = False
    fallback: str | None = None
    abandon_milliseconds: _Milliseconds | None = None
    predicted_milliseconds: _Milliseconds | None = None

    @classmethod
    def read(cls, path: Path) -> SetDocument:
        """The set in a file. Raises :class:`UserError`."""
        try:
            with path.open("rb") as stream:
                document = load_yaml(stream.read(LARGEST_BYTES + 1).decode())
            return cls.model_validate(document)
        except OSError as error:
            raise _refused(f"it cannot be read ({error.strerror}).", path) from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the document"
            raise _refused(f"{place}: {first['msg']}.", path) from error
        except ValueError as error:
            raise _refused(f"it is not YAML that can be read: {error}.", path) from error

    def fallback_of(self, manifest: Manifest) -> Variant:
        """The variant that answers alone. Raises :class:`UserError`."""
        return by_size(manifest)[0] if self.fallback is None else variant_named(manifest, self.fallback)

    def for_rank(
        self, rank: int, *, path: Path, identity: Path | None, manifest: Manifest, variant: Variant
    ) -> WorkerSet:
        """The set file of the worker ``rank``; ``path`` is the file's, ``identity`` the folder of its key.

        Names are resolved here: a worker resolves none. Raises :class:`UserError`.
        """
        split = variant.split
        assert split is not None
        if sorted(worker.rank for worker in self.workers) != list(range(split.workers)):
            raise _refused(f"its ranks are not 0 to {split.workers - 1}, each once, as the split has them.", path)
        if (identity is None) != self.plain_loopback:
            raise UserError(
                "a worker shows its certificate, unless the set says plainLoopback: true.",
                field="--identity",
                value=identity,
                remedy="Make one: edgefolio serve --make-identity DIR, and give it with --identity DIR.",
            )
        own = next(worker for worker in self.workers if worker.rank == rank)
        predicted = self.predicted_milliseconds or max(split.predicted_milliseconds, 1e-3)
        try:
            return WorkerSet(
                model=manifest.model,
                plan_sha256=variant.sha256,
                number=self.number,
                rank=rank,
                listen=_resolved(own.listen or own.address),
                peers=tuple(
                    Peer(rank=each.rank, address=_resolved(each.address), certificate=self._certificate(each, path))
                    for each in self.workers
                    if each.rank != rank
                ),
                certificate="" if identity is None else str((identity / CERTIFICATE_NAME).absolute()),
                key="" if identity is None else str((identity / KEY_NAME).absolute()),
                fallback=manifest.version_of(self.fallback_of(manifest)),
                abandon_milliseconds=self.abandon_milliseconds or abandon_milliseconds(predicted)[0],
                predicted_milliseconds=predicted,
            )
        except SetError as error:
            raise _refused(f"{error}.", path) from error

    def _certificate(self, worker: DeclaredWorker, path: Path) -> str:
        if self.plain_loopback:
            return ""
        if worker.certificate is None:
            raise _refused(f"worker {worker.rank} has no certificate.", path)
        file = path.parent / worker.certificate
        try:
            with file.open("rb") as stream:
                text = stream.read(_LARGEST_CERTIFICATE).decode()
            ssl.PEM_cert_to_DER_cert(text.strip())
        except (OSError, ValueError) as error:
            raise _refused(
                f"the certificate of worker {worker.rank}, {file}, cannot be read ({error}).", path
            ) from error
        return text


def _resolved(address: str) -> str:
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, OverflowError) as error:
        raise SetError(f"the address {address} cannot be resolved ({error})") from error
    ip = str(found[0][4][0])
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _refused(problem: str, path: Path) -> UserError:
    return UserError(problem, field=FIELD, value=path, remedy="Mend the file; docs/split.md shows one.")
