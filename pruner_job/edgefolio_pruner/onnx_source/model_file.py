"""A model in a file: network and weights at once."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from edgefolio.errors import UserError
from edgefolio.shown_text import printable, shortened, shown
from edgefolio_pruner.available_memory import require_memory
from edgefolio_pruner.model_source.hub import SCHEME, HubModel
from edgefolio_pruner.onnx_source.building import build
from edgefolio_pruner.onnx_source.free_batch import freed
from edgefolio_pruner.onnx_source.network import OnnxNetwork
from edgefolio_pruner.onnx_source.parsing import parse
from edgefolio_pruner.onnx_source.proof import require_possible, require_same_answers
from edgefolio_pruner.uris import read_uri

__all__ = ["ModelFile", "read_model_file"]

#: Of keys of kept work: another number where the same file is built into another network.
_FORM = 2
#: Names of tensors that a manifest, a request and a terminal take as they are.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/-]*")
_LONGEST_NAME = 63
#: The file, its parsed form, the weights of the network, and a copy of these in float64.
_COPIES = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelFile:
    """An ONNX file that was read, and the network built of it. ``where`` is the field that names it."""

    name: str
    sha256: str
    where: str
    network: OnnxNetwork = field(repr=False)
    content: bytes = field(repr=False)

    def build(self) -> OnnxNetwork:
        """The network with the file's weights, the same each time, in training mode."""
        return copy.deepcopy(self.network).train()

    @property
    def sample_shape(self) -> tuple[int, ...] | None:
        """The shape of a sample, where the file leaves none of its sizes free."""
        sizes = self.network.file_input.sizes
        if sizes is None or any(size is None for size in sizes[1:]):
            return None
        return tuple(int(size) for size in sizes[1:] if size is not None)

    @property
    def input_name(self) -> str | None:
        """What the file calls its input, so that clients of the file stay clients; ``None`` if requests cannot."""
        name = self.network.file_input.name
        return name if _usable(name) else None

    @property
    def output_names(self) -> tuple[str, ...] | None:
        """What the file calls its outputs; ``None`` if requests cannot, or if one is called as the input is."""
        names = self.network.output_names
        all_names = {self.network.file_input.name, *names}
        return names if all(map(_usable, names)) and len(all_names) == len(names) + 1 else None

    def renamed(self, input_name: str, output_names: Sequence[str]) -> list[str]:
        """What is to be told of tensors that are called otherwise than in the file."""
        own = (self.network.file_input.name, *self.network.output_names)
        pairs = zip(own, (input_name, *output_names), strict=True)
        changed = ", ".join(f"{shown(old, limit=60)!r} is {new!r}" for old, new in pairs if old != new)
        return [f"names of the ONNX file that requests cannot hold are changed: {changed}"] if changed else []

    @property
    def description(self) -> str:
        """The model in a few words."""
        return f"onnx:{self.name}"

    @property
    def record(self) -> dict[str, object]:
        """Part of the keys of kept work."""
        return {"sha256": self.sha256, "form": _FORM}

    def proven(self, shape: tuple[int, ...], *, threads: int = 1) -> ModelFile:
        """This file, without its bytes. Raises :class:`UserError` unless ONNX Runtime answers alike for ``shape``."""
        require_possible(self.network, shape, field=self.where, name=self.name)
        require_same_answers(self.network, self.content, shape, field=self.where, name=self.name, threads=threads)
        return replace(self, content=b"")


def read_model_file(uri: str | Path, *, field: str) -> ModelFile:
    """The model at ``uri``, a path or URI. Raises :class:`UserError` unless a network can be built of it."""
    content = _hub_file(str(uri), field=field) if str(uri).startswith(SCHEME) else read_uri(uri, field=field)
    name = shortened(printable(PurePosixPath(str(uri)).name), 200)
    require_memory(_COPIES * len(content), what="this model", field=field, value=uri)
    try:
        network = build(parse(content, field=field, name=name))
        sizes = network.file_input.sizes
        if sizes is not None and sizes[0] == 1:
            network = freed(network)
    except UserError as error:
        raise UserError(error.problem, field=field, value=uri, remedy=error.remedy) from error
    except MemoryError:
        raise
    except Exception as error:  # a file may hold attributes, weights and sizes that do not fit one another
        raise UserError(
            f"no network can be built of it ({type(error).__name__}: {' '.join(str(error).split())[:200]}).",
            field=field,
            value=uri,
            remedy="Export it again; ONNX Runtime tells whether the file is sound.",
        ) from error
    return ModelFile(
        name=name, sha256=hashlib.sha256(content).hexdigest(), where=field, network=network, content=content
    )


def _usable(name: str) -> bool:
    return len(name) <= _LONGEST_NAME and _NAME.fullmatch(name) is not None


def _hub_file(uri: str, *, field: str) -> bytes:
    return HubModel.of(uri, field=field).model_file().read_bytes()
