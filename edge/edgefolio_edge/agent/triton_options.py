"""Options of ``edgefolio run`` and ``serve`` for their Triton: where to start one, or which one to attach to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgefolio.errors import UserError
from edgefolio_edge.triton.host import Host, require_no_server_of_another_kind
from edgefolio_edge.triton.launcher.command_line import ServerSettings
from edgefolio_edge.triton.launcher.ports import Ports


@dataclass(frozen=True, kw_only=True)
class TritonOptions:
    """``model_directory`` is the model repository of the Triton at ``endpoint``, as seen from here."""

    endpoint: str | None
    endpoint_key_file: Path | None
    endpoint_metrics: str | None = None
    model_directory: Path | None
    address: str
    ports: Ports

    @property
    def model_repository(self) -> Path | None:
        """The absolute path of ``model_directory``."""
        return self.model_directory.absolute() if self.model_directory is not None else None

    @contextlib.contextmanager
    def host(
        self,
        directory: Path,
        *,
        models: Path,
        threads: int,
        die_with_parent: bool = True,
        dry_run: bool = False,
        worker_folder: Path | None = None,
    ) -> Iterator[Host]:
        """Context with the Triton. A started one reads ``models`` and is recorded in ``directory``.

        In ``worker_folder`` its workers of splits find their set.
        """
        if self.endpoint is None:
            settings = ServerSettings(
                model_repository=models,
                ports=self.ports,
                address=self.address,
                threads=threads,
                die_with_parent=die_with_parent,
                worker_folder=worker_folder,
            )
            with Host.own(settings, directory) as host:
                yield host
            return
        require_no_server_of_another_kind(directory)
        if self.model_directory is None and not dry_run:
            raise UserError(
                "the agent must know where that Triton reads its models.",
                field="--model-directory",
                remedy="Name the directory that the Triton was started with as --model-repository, as seen from here.",
            )
        with Host.attached(self.endpoint, key_file=self.endpoint_key_file, metrics=self.endpoint_metrics) as host:
            yield host
