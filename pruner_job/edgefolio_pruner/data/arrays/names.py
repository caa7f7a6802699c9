"""Names of arrays and columns that hold samples and targets, as people call them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from edgefolio_pruner.data.arrays.converting import Request
from edgefolio_pruner.data.raw import TEST, TRAIN, VALIDATION

SAMPLES = ("x", "image", "images", "img", "imgs", "data", "input", "inputs", "sample", "samples", "feature", "features")
TARGETS = ("y", "label", "labels", "target", "targets", "mask", "masks", "class", "classes", "fine_label")
CLASS_NAMES = ("class_names", "label_names", "category_names", "classnames")
_PARTS = {
    TRAIN: (TRAIN, "training", "tr"),
    VALIDATION: (VALIDATION, "val", "valid", "dev"),
    TEST: (TEST, "testing", "te"),
}


def arrays_of_parts(names: Iterable[str], request: Request) -> dict[str, tuple[str, str | None]]:
    """Names of samples and targets by part, of an archive that holds arrays called ``names``.

    The part may stand before or behind the name (``x_train``, ``train_images``); a name without one means training.
    Raises :class:`UserError` where a part has samples or targets alone, or two of them.
    """
    samples: dict[str, list[str]] = {}
    targets: dict[str, list[str]] = {}
    known = list(names)
    for name in known:
        part, bare = _split(name)
        if bare in SAMPLES:
            samples.setdefault(part, []).append(name)
        elif bare in TARGETS:
            targets.setdefault(part, []).append(name)
    for kind, found in (("samples", samples), ("labels", targets)):
        for part, several in found.items():
            exact = [name for name in several if _split(name)[1] in ("x", "y")]
            if len(several) > 1 and len(exact) != 1:
                raise request.bad(
                    f"the arrays {', '.join(map(repr, several))} could all be the {kind} for {part}.",
                    f"Keep one of them, or call it {'x' if kind == 'samples' else 'y'}_{part}.",
                )
            found[part] = exact if len(several) > 1 else several
    for part in sorted({*samples, *targets}):
        if part not in samples or (part not in targets and request.needs_labels):
            missing = ("x" if part not in samples else "y") + ("" if "x" in known or "y" in known else f"_{part}")
            raise request.bad(f"the array {missing!r} is missing.", "Give samples and labels of every part.")
    if TRAIN not in samples and request.needed not in samples:
        held = ", ".join(sorted(known)[:20]) or "nothing"
        raise request.bad(
            f"it holds {held}, but no x_{request.needed} or x.",
            f"Save x_{request.needed} and y_{request.needed}, or x and y.",
        )
    return {part: (found[0], targets[part][0] if part in targets else None) for part, found in samples.items()}


def inputs_of_parts(names: Iterable[str], request: Request) -> dict[str, tuple[tuple[str, ...], str | None]]:
    """Names of all inputs of ``request``, in their order, and of the targets, by part; as :func:`arrays_of_parts`."""
    known = list(names)
    wanted = [name.lower() for name in request.inputs]
    inputs: dict[str, dict[str, str]] = {}
    targets: dict[str, str] = {}
    for name in known:
        part, bare = _split(name, wanted)
        if bare in wanted:
            inputs.setdefault(part, {})[bare] = name
        elif bare in TARGETS:
            targets.setdefault(part, name)
    for part, found in inputs.items():
        missing = [name for name in request.inputs if name.lower() not in found]
        if missing:
            where = "" if part == TRAIN else f" for {part}"
            raise request.bad(
                f"it holds {', '.join(sorted(known)[:20])}, and no array {missing[0]!r}{where} of data.inputs.",
                "Name arrays of the file in data.inputs.",
            )
        if part not in targets and request.needs_labels:
            raise request.bad(f"there are no labels for {part}.", "Give an array y, or y_validation and the like.")
    if TRAIN not in inputs and request.needed not in inputs:
        held = ", ".join(sorted(known)[:20]) or "nothing"
        raise request.bad(
            f"it holds {held}, and no array {request.inputs[0]!r} of data.inputs.",
            "Name arrays of the file in data.inputs.",
        )
    return {part: (tuple(found[name] for name in wanted), targets.get(part)) for part, found in inputs.items()}


def class_names_key(names: Iterable[str]) -> str | None:
    """The array that names the classes."""
    return next((name for name in names if name.lower() in CLASS_NAMES), None)


def column_of(columns: Iterable[str], wanted: tuple[str, ...]) -> str | None:
    """The column of a table that is called one of ``wanted``, the first of them."""
    by_name: Mapping[str, str] = {name.strip().lower(): name for name in reversed(list(columns))}
    return next((by_name[name] for name in wanted if name in by_name), None)


def _split(name: str, inputs: Sequence[str] = SAMPLES) -> tuple[str, str]:
    """Part and bare name, in small letters; ``inputs`` are the names of samples."""
    text = name.lower()
    if text in inputs:
        return TRAIN, text
    for part, words in _PARTS.items():
        for word in words:
            match = re.fullmatch(
                rf"(?:{word}[_./-]?(?P<after>.+)|(?P<before>.+?)[_./-]{word}|(?P<close>x|y){word})", text
            )
            if match:
                bare = match["after"] or match["before"] or match["close"]
                if bare in inputs or bare in TARGETS:
                    return part, bare
    return TRAIN, text
