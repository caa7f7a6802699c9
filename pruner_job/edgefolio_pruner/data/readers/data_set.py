"""A data set that a callable of the user's gives: ``factory:module:callable``.

It is called with the part that is wanted (``train``, ``validation``, ``test``) if it takes an argument, and returns a
map-style ``Dataset`` of torch, any other sequence of samples with their targets, or the two as arrays. A sample is a
tensor, an array or a picture.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edgefolio.errors import EdgefolioError
from edgefolio_pruner.callables import imported
from edgefolio_pruner.data.arrays.converting import Found, Request, assembled
from edgefolio_pruner.data.arrays.names import SAMPLES, TARGETS, column_of
from edgefolio_pruner.data.raw import RawData
from edgefolio_pruner.data.stored import SampleWriter

SCHEME = "factory:"
_FORM = "Return a torch Dataset of (sample, target), or a pair of arrays."


def read_data_set(request: Request) -> RawData:
    """The data of the callable in ``request.uri``. Raises :class:`UserError` for the request's field."""
    call = imported(request.uri.removeprefix(SCHEME), field=request.field, example="factory:my_data:build")
    try:
        given = call(request.needed) if _takes_a_part(call) else call()
        if isinstance(given, tuple) and len(given) == 2 and all(hasattr(part, "shape") for part in given):
            samples, targets = (_array(part) for part in given)
        else:
            samples, targets = _collected(given, request)
    except EdgefolioError:
        raise
    except Exception as error:  # it is the user's code
        raise request.bad(
            f"the data set failed ({type(error).__name__}: {' '.join(str(error).split())[:200]}).", _FORM
        ) from error
    names = getattr(given, "classes", None)
    found = Found(samples=samples, targets=targets, samples_name="the samples", targets_name="the targets")
    classes = isinstance(names, list | tuple) and request.task == "Classification"
    return assembled(
        {request.needed: found}, request, class_names=tuple(map(str, names)) if classes and names else None
    )


def _takes_a_part(call: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(parameter.kind in positional for parameter in parameters)


def _collected(given: Any, request: Request) -> tuple[Any, Any]:
    if not hasattr(given, "__len__") or not hasattr(given, "__getitem__"):
        raise request.bad(f"it gave a {type(given).__name__}, which has no length or no items.", _FORM)
    count = len(given)
    if count == 0:
        raise request.bad("the data set is empty.", "Give samples.")
    writer: SampleWriter | None = None
    targets: list[Any] = []
    for number, (sample, target) in enumerate(_items(given, count, request)):
        array = _array(sample)
        if writer is None:
            writer = SampleWriter(
                count,
                shape=array.shape,
                dtype=array.dtype,
                folder=request.scratch,
                field=request.field,
                value=request.uri,
            )
        if array.shape != writer.sample_shape or array.dtype != writer.dtype:
            raise request.bad(
                f"sample {number} is {array.dtype} {list(array.shape)}, the first {writer.dtype} "
                f"{list(writer.sample_shape)}.",
                "Bring all samples to one shape and type in the data set.",
            )
        writer.add(array[None])
        targets.append(None if target is None else target if isinstance(target, str) else _array(target))
    assert writer is not None
    if all(target is None for target in targets):
        return writer.samples(), None
    try:
        return writer.samples(), np.array(targets) if isinstance(targets[0], str) else np.stack(targets)
    except (TypeError, ValueError) as error:
        raise request.bad(
            f"its targets are not of one kind ({error}).", "Give every sample a target of one shape."
        ) from error


def _items(given: Any, count: int, request: Request) -> Iterator[tuple[Any, Any]]:
    for number in range(count):
        item = given[number]
        if isinstance(item, dict):
            key = column_of(item, SAMPLES)
            if key is None:
                raise request.bad(f"sample {number} has the keys {', '.join(map(str, item))}.", "Call them x and y.")
            target = column_of(item, TARGETS)
            yield item[key], None if target is None else item[target]
        elif isinstance(item, tuple | list):
            if len(item) not in (1, 2):
                raise request.bad(f"sample {number} has {len(item)} parts.", _FORM)
            yield item[0], item[1] if len(item) == 2 else None
        else:
            yield item, None


def _array(value: Any) -> Any:
    """A tensor, a picture or numbers as an array; pictures with their channels first."""
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    if hasattr(value, "getbands"):
        picture = np.asarray(value)
        return picture[None] if picture.ndim == 2 else np.ascontiguousarray(picture.transpose(2, 0, 1))
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float64 and array.ndim > 0 else array
