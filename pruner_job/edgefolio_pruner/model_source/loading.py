"""Model loader: an architecture by name, and its weights from safetensors.

Never a pickle: reading one runs whatever code it holds.
"""

from __future__ import annotations

import contextlib
import difflib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from edgefolio.errors import UserError
from edgefolio.specification import Architecture
from edgefolio.specification.making import OptionValue
from edgefolio_pruner.available_memory import require_memory
from edgefolio_pruner.callables import imported
from edgefolio_pruner.finite import all_finite
from edgefolio_pruner.model_source.hub import SCHEME, HubModel
from edgefolio_pruner.model_source.option_values import option_value, plain_value
from edgefolio_pruner.model_source.weight_forms import plain_module, plain_weights, weights_as_built
from edgefolio_pruner.model_source.wrappers import unwrapped, without_wrapper_names
from edgefolio_pruner.uris import read_uri

_ARCHITECTURE_FIELD = "spec.source.architecture"
_WEIGHTS_FIELD = "spec.source.weightsURI"
_LIBRARIES = ("timm", "torchvision", "edgefolio", "factory")
_SHOWN = 10
#: Names, types and places of 100,000 tensors.
_LARGEST_HEADER = 16 << 20

# These options make timm and torchvision download weights, which are often pickles.
_DOWNLOADING_OPTIONS = frozenset({"pretrained", "pretrained_cfg", "weights", "weights_backbone", "checkpoint_path"})


def build_architecture(architecture: Architecture, *, seed: int = 0, field: str = _ARCHITECTURE_FIELD) -> nn.Module:
    """The network that ``architecture`` names, freshly initialised, on the CPU, in training mode.

    The same ``seed`` gives the same initial weights; the global random states are left as they were. Option values
    that are decimal numbers in text (``"0.1"``: the resource has no floats) are passed on as floats. Raises
    :class:`UserError` for ``field`` if the name is unknown (with the nearest names) or the options are refused.
    """
    return plain_module(_as_built(architecture, seed=seed, field=field))


def _as_built(architecture: Architecture, *, seed: int, field: str) -> nn.Module:
    """The network as the library or the factory gives it, with parametrizations and masks, without wrappers."""
    build = _builder(architecture, field)
    options = {name: plain_value(value) for name, value in architecture.options.items()}
    with _seeded(seed):
        try:
            module = build(**options)
        except UserError:
            raise
        except Exception as error:  # each library rejects the user's options in its own way
            if not options:
                raise UserError(
                    f"{_shown_name(architecture)} failed: {_told(error)}.",
                    field=f"{field}.name",
                    value=architecture.name,
                    remedy="Call it by itself; options that it needs are given with it.",
                ) from error
            raise UserError(
                f"{_shown_name(architecture)} refused its options: {_told(error)}.",
                field=f"{field}.options",
                value=dict(architecture.options),
                remedy="Correct or remove the option.",
            ) from error
    if not isinstance(module, nn.Module):
        raise UserError(
            f"it gave a {type(module).__name__}, not a torch.nn.Module.",
            field=f"{field}.name",
            value=architecture.name,
            remedy="Let the callable return the module.",
        )
    return unwrapped(module, field=field, name=architecture.name)


def parse_architecture(
    text: str, options: Sequence[str] = (), *, field: str = "--architecture", option_field: str = "--option"
) -> Architecture:
    """An architecture from its form on the command line: ``timm:resnet18`` and options such as ``num_classes=10``.

    ``factory:module:callable`` names a callable. A value is an integer, ``true``, ``false`` or ``none`` where it reads
    as one, a list in brackets (``[24,48]``), else text.
    """
    library, separator, name = text.partition(":")
    if not separator or not name or library not in _LIBRARIES:
        raise UserError(
            "this is not library:name with a known library.",
            field=field,
            value=text,
            remedy="Write for example timm:resnet18, torchvision:vgg11_bn, edgefolio:resnet8 or factory:nets:build.",
        )
    parsed: dict[str, OptionValue] = {}
    for option in options:
        key, separator, value = option.partition("=")
        if not separator or not key.isidentifier():
            raise UserError(
                "an option is name=value.", field=option_field, value=option, remedy="Write for example num_classes=10."
            )
        parsed[key] = option_value(value)
    return Architecture(library=library, name=name, options=parsed)


def load_weights(
    module: nn.Module, uri: str | Path, *, architecture: Architecture | None = None, field: str = _WEIGHTS_FIELD
) -> None:
    """Fill ``module``, built of ``architecture``, with the weights in the safetensors file at ``uri``.

    Every parameter and buffer must be there, but counters of batch norm (``num_batches_tracked``) and names that share
    their tensor with one that is given. Nothing is changed if the weights don't fit. Raises :class:`UserError` for a
    pickle, other bytes, names or shapes that don't fit (the first ten), and values that are not finite.
    """
    state, _ = weights_for(module, read_weights(uri, field=field), architecture=architecture)
    check_weights_fit(module, state, field=field, name=str(uri))
    module.load_state_dict(state, strict=False)


def weights_for(
    module: nn.Module, state: Mapping[str, torch.Tensor], *, architecture: Architecture | None = None
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """``state`` as ``module`` names and holds its weights, whatever form they are saved in, and what is to be told.

    A network of ``architecture`` may compute its weights in a way of its own: then it does so once, here.
    """
    wanted = module.state_dict()
    found, notes = plain_weights(without_wrapper_names(state, wanted), wanted)
    if architecture is None or wanted.keys() <= found.keys():
        return found, notes
    built = _as_built(architecture, seed=0, field=_ARCHITECTURE_FIELD)
    computed = weights_as_built(without_wrapper_names(state, built.state_dict()), built)
    if computed is None:
        return found, notes
    return computed, ("the weights are given as the network's own parametrizations hold them, and are folded",)


def read_weights(uri: str | Path, *, field: str = _WEIGHTS_FIELD) -> dict[str, torch.Tensor]:
    """The tensors in the safetensors file at ``uri``, by name; all finite. Raises :class:`UserError`.

    ``hf://`` names a model of the Hugging Face Hub, whose weights may be several files.
    """
    if str(uri).startswith(SCHEME):
        state: dict[str, torch.Tensor] = {}
        for path in HubModel.of(str(uri), field=field).weights():
            state |= _read_file(path, field=field)
        return state
    return _read_file(uri, field=field)


def _read_file(uri: str | Path, *, field: str) -> dict[str, torch.Tensor]:
    content = read_uri(uri, field=field)
    _refuse_pickle(content, field=field, name=str(uri))
    require_memory(len(content), what="these weights", field=field, value=uri)
    try:
        # Its own limit is 100 MB, of which the reader makes ten times as much.
        if int.from_bytes(content[:8], "little") > _LARGEST_HEADER:
            raise ValueError(f"its header is larger than {_LARGEST_HEADER} bytes")
        state: dict[str, torch.Tensor] = safetensors.torch.load(content)
        del content  # as large as what was made of it
    except MemoryError:
        raise
    except Exception as error:  # SafetensorError, and what torch raises on odd shapes and types
        raise UserError(
            f"this is no safetensors file ({_one_line(error)}).",
            field=field,
            value=uri,
            remedy="Save the weights with safetensors.torch.save_file(model.state_dict(), path).",
        ) from error
    for name, tensor in state.items():
        if not all_finite(tensor):
            raise UserError(
                f"the tensor {name!r} holds values that are not finite (NaN or infinity).",
                field=field,
                value=uri,
                remedy="Train or export the weights again.",
            )
    return state


def check_weights_fit(module: nn.Module, state: Mapping[str, torch.Tensor], *, field: str, name: str) -> None:
    """Raise :class:`UserError` with the first ten names and shapes if ``state`` does not fit ``module``."""
    wanted = module.state_dict()
    given_storage = {wanted[key].data_ptr() for key in state if key in wanted and wanted[key].numel()}
    misfits: list[str] = []
    for key, tensor in wanted.items():
        if key in state:
            if state[key].shape != tensor.shape:
                misfits.append(f"{key}: {_shape(state[key])} given, {_shape(tensor)} wanted")
        elif not key.endswith("num_batches_tracked") and tensor.data_ptr() not in given_storage:
            misfits.append(f"{key}: missing, {_shape(tensor)} wanted")
    others = [f"{key}: {_shape(state[key])} given, not wanted" for key in state if key not in wanted]
    if misfits or others:
        # Of both some are shown: a prefix is seen by comparing them.
        shown = misfits[: max(_SHOWN // 2, _SHOWN - len(others))]
        shown += others[: _SHOWN - len(shown)]
        left = len(misfits) + len(others) - len(shown)
        more = f"; and {left} more" if left else ""
        raise UserError(
            f"the weights don't fit the architecture ({'; '.join(shown)}{more}).",
            field=field,
            value=name,
            remedy="Name the architecture and options that the weights were saved from.",
        )


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed every generator that a network's code may use, for the time being."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def _builder(architecture: Architecture, field: str) -> Callable[..., Any]:
    name, library = architecture.name, architecture.library
    if library == "factory":
        return imported(name, field=f"{field}.name", example="nets:build")
    downloading = sorted(_DOWNLOADING_OPTIONS & architecture.options.keys())
    if downloading and library != "edgefolio":
        raise UserError(
            f"the option {downloading[0]!r} would download weights, which may be a pickle.",
            field=f"{field}.options",
            value=downloading[0],
            remedy="Remove it, and name a safetensors file as the weights.",
        )
    if library == "edgefolio":
        from edgefolio_pruner.architectures import BUILTIN

        if name not in BUILTIN:
            raise _unknown(architecture, tuple(BUILTIN), field)
        return BUILTIN[name]
    if library == "timm":
        import timm

        if name.startswith(("hf_hub:", "hf-hub:", SCHEME)):
            model = name.partition(":")[2].lstrip("/")
            raise UserError(
                "a model of the Hub is named by its weights.",
                field=f"{field}.name",
                value=name,
                remedy=f"Set source.weightsURI: {SCHEME}{model.partition('@')[0]}@COMMIT, and here the name in timm "
                f"({model.rpartition('/')[2].partition('.')[0]}).",
            )
        if not timm.is_model(name):
            raise _unknown(architecture, timm.list_models(), field)
        return lambda **options: timm.create_model(name, pretrained=False, **options)
    import torchvision

    known: list[str] = torchvision.models.list_models()
    if name not in known:
        raise _unknown(architecture, known, field)
    # torchvision downloads backbones by default.
    backbone = {"weights_backbone": None} if name not in torchvision.models.list_models(torchvision.models) else {}
    return lambda **options: torchvision.models.get_model(name, weights=None, **backbone, **options)


def with_hub_configuration(module: nn.Module, uri: str, *, library: str, field: str = _WEIGHTS_FIELD) -> None:
    """Give ``module`` of timm the ``pretrained_cfg`` of its model on the Hub: how its samples are prepared."""
    if not uri.startswith(SCHEME) or library != "timm":
        return
    found = HubModel.of(uri, field=field).configuration()
    own = found.get("pretrained_cfg")
    before = getattr(module, "pretrained_cfg", None)
    if isinstance(own, dict):
        names = {"label_names": found["label_names"]} if isinstance(found.get("label_names"), list) else {}
        module.pretrained_cfg = {**(before if isinstance(before, dict) else {}), **own, **names}  # type: ignore[assignment]


def _unknown(architecture: Architecture, known: Sequence[str], field: str) -> UserError:
    nearest = difflib.get_close_matches(architecture.name, known, n=5, cutoff=0.5)
    hint = f"Did you mean {', '.join(nearest)}?" if nearest else f"{architecture.library} knows {len(known)} others."
    return UserError(
        f"{architecture.library} knows no such architecture.",
        field=f"{field}.name",
        value=architecture.name,
        remedy=hint,
    )


def _refuse_pickle(content: bytes, *, field: str, name: str) -> None:
    # torch.save writes a zip archive, or a bare pickle (protocol 2 and later begin with 0x80) in the old format.
    if content[:4] == b"PK\x03\x04" or (content[:1] == b"\x80" and content[1:2] in b"\x02\x03\x04\x05"):
        # A safetensors file begins with the header's length and an opening brace, and may begin with 0x80 by chance.
        if content[8:9] == b"{":
            return
        raise UserError(
            "this is a pickle, and reading a pickle runs the code in it.",
            field=field,
            value=name,
            remedy="Convert it where you trust it: safetensors.torch.save_file(model.state_dict(), path).",
        )


def _shown_name(architecture: Architecture) -> str:
    return f"{architecture.library}:{architecture.name}"


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape) or "scalar"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")


def _told(error: BaseException) -> str:
    """Its type and, where it has one, its message."""
    return ": ".join(part for part in (type(error).__name__, _one_line(error)) if part)
