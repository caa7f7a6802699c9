"""Models from the Hugging Face Hub: ``hf://organization/model@commit``, safetensors or one ONNX file, no pickles.

The commit is named in full, so that the same URI gives the same bytes. ``HF_ENDPOINT`` names a mirror that speaks the
Hub's protocol, ``HF_HOME`` the cache, ``HF_HUB_OFFLINE=1`` reads the cache alone, ``HF_TOKEN`` opens private models;
these are huggingface_hub's own.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgefolio.errors import EdgefolioError, TransientError, UserError

SCHEME = "hf://"
_FORM = re.compile(
    r"hf://(?P<model>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w.-]+?))?(?:/(?P<file>(?:[\w-][\w.-]*/){0,4}[\w-][\w.-]*\.(?:safetensors|onnx)))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ONNX = ".onnx"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_CONFIGURATION = "config.json"
_LARGEST_CONFIGURATION = 8 << 20


@dataclass(frozen=True, kw_only=True)
class HubModel:
    """A model at one commit; ``file`` is the file of weights or the ONNX file, where it is named."""

    model: str
    commit: str
    file: str | None
    uri: str
    field: str

    @classmethod
    def of(cls, uri: str, *, field: str) -> HubModel:
        """The model that ``uri`` names. Raises :class:`UserError` for ``field`` if it names none, or no commit."""
        match = _FORM.fullmatch(uri)
        if match is None:
            raise UserError(
                "this names no model of the Hub.",
                field=field,
                value=uri,
                remedy="Write hf://organization/model@commit.",
            )
        revision = match["revision"]
        if revision is None or not _COMMIT.fullmatch(revision):
            model = f"{SCHEME}{match['model']}"
            raise UserError(
                f"it names {'no commit' if revision is None else f'{revision!r}, which may change'}.",
                field=field,
                value=uri,
                remedy=f"Write {model}@ and the 40 digits of the commit{_now(match['model'], revision)}.",
            )
        return cls(model=match["model"], commit=revision, file=match["file"], uri=uri, field=field)

    def weights(self) -> tuple[Path, ...]:
        """The files of weights, one or several. Raises :class:`UserError`."""
        if self.file is not None and self.file.endswith(_ONNX):
            raise UserError(
                "an ONNX file holds network and weights.",
                field=self.field,
                value=self.uri,
                remedy="Name it in source.modelURI, without architecture and weightsURI.",
            )
        if self.file is not None:
            return (self._required(self.file),)
        single = self._file(_WEIGHTS)
        if single is not None:
            return (single,)
        index = self._file(_INDEX)
        if index is None:
            raise UserError(
                f"the model has no {_WEIGHTS}.",
                field=self.field,
                value=self.uri,
                remedy="Name another file of safetensors behind the commit; pickles (.bin, .pth) are not read.",
            )
        return tuple(self._required(name) for name in sorted(set(self._weight_map(index).values())))

    def model_file(self) -> Path:
        """The ONNX file. Raises :class:`UserError` if none is named."""
        if self.file is None or not self.file.endswith(_ONNX):
            raise UserError(
                "it names no ONNX file of the model.",
                field=self.field,
                value=self.uri,
                remedy=f"Write {SCHEME}{self.model}@{self.commit}/onnx/model.onnx, for example.",
            )
        return self._required(self.file)

    def configuration(self) -> Mapping[str, Any]:
        """What ``config.json`` holds; nothing where there is none. Raises :class:`UserError` if it is broken."""
        path = self._file(_CONFIGURATION)
        return {} if path is None else self._document(path)

    def _weight_map(self, index: Path) -> Mapping[str, str]:
        names = self._document(index).get("weight_map")
        if not isinstance(names, dict) or not all(
            isinstance(name, str) and re.fullmatch(r"[\w.-]+\.safetensors", name) for name in names.values()
        ):
            raise self._bad(f"{_INDEX} names files that are no safetensors of this model")
        return names

    def _document(self, path: Path) -> Mapping[str, Any]:
        try:
            if path.stat().st_size > _LARGEST_CONFIGURATION:
                raise ValueError("it is too large")
            found = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise self._bad(f"{path.name} cannot be read ({error})") from error
        if not isinstance(found, dict):
            raise self._bad(f"{path.name} is no mapping")
        return found

    def _required(self, name: str) -> Path:
        path = self._file(name)
        if path is None:
            raise self._bad(f"the model has no {name}")
        return path

    def _file(self, name: str) -> Path | None:
        """The file in the cache, fetched if need be; ``None`` if the model has none of this name."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            return Path(hf_hub_download(self.model, name, revision=self.commit, endpoint=_endpoint()))
        except LocalEntryNotFoundError as error:
            raise TransientError(
                f"{name} is not in the cache, and the Hub cannot be reached ({_one_line(error)}).",
                field=self.field,
                value=self.uri,
                remedy="Set HF_ENDPOINT to a mirror, or HF_HOME to a cache that holds the model.",
            ) from error
        except EntryNotFoundError:
            return None
        except EdgefolioError:
            raise
        except Exception as error:  # the library's errors have no common class
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> UserError:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if (
            isinstance(error, OSError)
            and status is None
            and error.errno is None
            and type(error).__module__ == "builtins"
        ):
            status = 500
        if status is not None and (status >= 500 or status == 429):
            return TransientError(
                f"the Hub answers {status}.", field=self.field, value=self.uri, remedy="Try again later."
            )
        if status in (401, 403, 404):
            return self._bad("there is no such model or commit, or it is not open to everybody")
        return TransientError(
            f"the Hub cannot be reached ({_one_line(error)}).",
            field=self.field,
            value=self.uri,
            remedy="Set HF_ENDPOINT to a mirror, or HF_HOME to a cache that holds the model.",
        )

    def _bad(self, problem: str) -> UserError:
        return UserError(
            f"{problem}.",
            field=self.field,
            value=self.uri,
            remedy="Correct it; HF_TOKEN opens private models, HF_ENDPOINT names a mirror.",
        )


def _now(model: str, revision: str | None) -> str:
    """The commit that a revision is at, as the end of a remedy; nothing where that cannot be known."""
    try:
        from huggingface_hub import HfApi

        found = HfApi(endpoint=_endpoint()).model_info(model, revision=revision, timeout=10).sha
    except Exception:  # it is only a help
        return ""
    return f" (now {found})" if isinstance(found, str) and _COMMIT.fullmatch(found) else ""


def _endpoint() -> str | None:
    """A mirror; the library reads the variable once, when it is imported."""
    return os.environ.get("HF_ENDPOINT") or None


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200].rstrip(".")
