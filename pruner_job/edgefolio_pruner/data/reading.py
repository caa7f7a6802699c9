"""Readers of data by what a URI names: a built-in set, a folder of pictures, a file of arrays."""

from __future__ import annotations

import re
from collections.abc import Callable

from edgefolio.errors import UserError
from edgefolio_pruner.data.arrays.converting import Request
from edgefolio_pruner.data.raw import TRAIN, RawData
from edgefolio_pruner.data.readers.arrow_table import read_arrow
from edgefolio_pruner.data.readers.csv_table import read_csv
from edgefolio_pruner.data.readers.data_set import SCHEME, read_data_set
from edgefolio_pruner.data.readers.digits import read_digits
from edgefolio_pruner.data.readers.fashion_mnist import read_fashion_mnist
from edgefolio_pruner.data.readers.image_folder import is_folder, read_image_folder
from edgefolio_pruner.data.readers.npy import read_npy
from edgefolio_pruner.data.readers.npz import read_npz
from edgefolio_pruner.data.readers.tar_archive import read_tar

BUILTIN = ("builtin:digits", "builtin:fashion-mnist")


#: Endings of files, and who reads them. Others are a folder, or an .npz file.
_BY_SUFFIX: tuple[tuple[tuple[str, ...], Callable[[Request], RawData]], ...] = (
    ((".csv", ".tsv"), read_csv),
    ((".tar",), read_tar),
    ((".npy",), read_npy),
    ((".parquet", ".arrow"), read_arrow),
)


#: What people have, and what to do with it.
_REMEDIES = (
    (
        r".*\.(tar\.\w+|tgz|tbz2?|txz)",
        "a compressed archive cannot be read at places.",
        "Unpack it to a .tar (gunzip), or to a folder.",
    ),
    (
        r".*(\*|\{[^{}]*(\.\.|,)[^{}]*\}).*",
        "this is a pattern of several files, and one is read.",
        "Join the shards (tar --concatenate), or read them in a factory: factory:module:callable.",
    ),
    (
        r".*\.(h5|hdf5|mat|pkl|pickle|pt|pth|tfrecords?|feather|zip|gz|json|jsonl|xlsx?)",
        "files of this kind are not read.",
        "Save the arrays with numpy.savez, write a table as .csv or .parquet, or read them in a factory: "
        "factory:module:callable.",
    ),
)
_SEVERAL = "Name an .npz file that holds one array for each of data.inputs."


def read_raw(request: Request) -> RawData:
    """The data at ``request.uri``. Raises :class:`UserError` for its field."""
    uri, needed, field = request.uri, request.needed, request.field
    if uri.startswith(SCHEME):
        if request.inputs:
            raise request.bad("a factory gives one input, and data.inputs names several.", _SEVERAL)
        return read_data_set(request)
    for pattern, problem, remedy in _REMEDIES:
        if re.fullmatch(pattern, _path(uri), flags=re.DOTALL) and not is_folder(uri, field=field):
            raise request.bad(problem, remedy)
    reader = next((read for suffixes, read in _BY_SUFFIX if _path(uri).endswith(suffixes)), None)
    if request.inputs and (reader is not None or uri.startswith("builtin:") or is_folder(uri, field=field)):
        raise request.bad("it has one input, and data.inputs names several.", _SEVERAL)
    if reader is not None:
        return reader(request)
    folder = not uri.startswith("builtin:") and is_folder(uri, field=field)
    if (folder or uri.startswith("builtin:")) and request.task != "Classification":
        raise request.bad(
            f"it holds classes, not targets of data.task {request.task}.",
            "Name an .npz file, a table, or a factory that gives samples with their targets.",
        )
    if uri == "builtin:digits":
        return read_digits()
    if uri == "builtin:fashion-mnist":
        return read_fashion_mnist(field=field)
    if uri.startswith("builtin:"):
        raise UserError(
            "there is no such built-in data set.", field=field, value=uri, remedy=f"Use {' or '.join(BUILTIN)}."
        )
    if not folder:
        return read_npz(request)
    data = read_image_folder(
        uri,
        image_size=request.image_size,
        model_size=request.model_size,
        class_names=request.class_names,
        field=field,
        scratch=request.scratch,
    )
    if needed not in data.parts and TRAIN not in data.parts:
        raise request.bad(
            f"the folder has parts, but none for {needed}.", f"Put the images into <folder>/{needed}/<class>/."
        )
    return data


def _path(uri: str) -> str:
    """The path of a URI in small letters, without what may follow it."""
    return uri.partition("?")[0].lower()
