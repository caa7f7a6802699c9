"""Probe of a variant: a few real samples and their expected outputs, checked at every load."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgefolio.manifest import Probe, Tensor
from edgefolio_pruner.profiling.session import open_session
from edgefolio_pruner.quantization import outputs_of

#: Outputs may differ by this part of the largest one: far above what another processor or optimization level changes
#: (about 1e-5), far below the distance between two variants.
RELATIVE_TOLERANCE = 1e-3
_SMALLEST_TOLERANCE = 1e-5
#: Samples by the number of values of one: a manifest holds them as text, for every variant.
_SAMPLES = ((1 << 10, 4), (1 << 14, 2))
#: Of so many samples the steadiest are the probe of a quantized file. They are shaken by more than a hundred times what
#: float operators differ on other processors (1e-7 to 1e-6).
LARGEST_PROBE = 64
_SHAKES = 4
_SHAKE = np.float32(1e-4)


def probe_samples(
    inputs: Sequence[npt.NDArray[np.float32]], *, most: int | None = None
) -> tuple[npt.NDArray[np.float32], ...]:
    """The first samples of each input [N, ...], 4, 2 or 1 by their size (or ``most``), rounded to two decimals."""
    values = sum(int(np.prod(given.shape[1:])) for given in inputs)
    count = most or next((count for largest, count in _SAMPLES if values <= largest), 1)
    return tuple(np.round(given[:count].astype(np.float64), 2).astype(np.float32) for given in inputs)


def make_probe(
    path: Path, samples: Mapping[str, npt.NDArray[np.float32]], *, output_names: tuple[str, ...], threads: int
) -> Probe:
    """The probe of the ONNX file at ``path``: ``samples`` by input and what the runtime gives for them."""
    outputs = open_session(path, threads=threads).run(list(output_names), dict(samples))
    return _probe(samples, outputs, output_names=output_names)


def _probe(
    samples: Mapping[str, npt.NDArray[np.float32]],
    outputs: Sequence[npt.NDArray[np.float32]],
    *,
    output_names: tuple[str, ...],
) -> Probe:
    largest = max(float(np.abs(output).max()) for output in outputs)
    return Probe(
        inputs=tuple(_tensor(name, given, decimals=2) for name, given in samples.items()),
        outputs=tuple(_tensor(name, output, decimals=6) for name, output in zip(output_names, outputs, strict=True)),
        absolute_tolerance=max(_SMALLEST_TOLERANCE, RELATIVE_TOLERANCE * largest),
    )


def make_int8_probe(
    path: Path, images: npt.NDArray[np.float32], *, input_name: str, output_names: tuple[str, ...], threads: int
) -> Probe:
    """The probe of a quantized file: samples that no rounding decides, so that its tolerance can be as small.

    With weights of 7 bits every processor computes the same integers, but what little its float operators differ can
    move an activation over the edge between two steps, which moves the answer by far more. Samples far from such edges
    answer alike on every processor; for others the tolerance would have to be so wide that a wrong weight hides in it.
    """
    content = path.read_bytes()
    (pool,) = probe_samples((images[:LARGEST_PROBE],), most=LARGEST_PROBE)
    moved = np.maximum(
        _moved(lambda samples: outputs_of(content, samples, threads=threads), pool),
        _largest(outputs_of(content, pool, threads=threads) - outputs_of(content, pool, threads=threads, literal=True)),
    )
    steadiest = _steadiest(moved, len(probe_samples((images,))[0]))
    probe = make_probe(path, {input_name: pool[steadiest]}, output_names=output_names, threads=threads)
    return _as_wide_as(probe, moved[steadiest])


def make_split_probe(
    run: Callable[[npt.NDArray[np.float32]], Sequence[npt.NDArray[np.float32]]],
    images: npt.NDArray[np.float32],
    *,
    input_name: str,
    output_names: tuple[str, ...],
    literal: Callable[[npt.NDArray[np.float32]], Sequence[npt.NDArray[np.float32]]] | None = None,
) -> Probe:
    """The probe of a split, whose wire rounds as an int8 model does: the steadiest samples, as ``run`` answers.

    With quantized shards ``literal`` gives the answers of all operators computed as they stand, unfused.
    """
    (pool,) = probe_samples((images[:LARGEST_PROBE],), most=LARGEST_PROBE)
    moved = _moved(lambda samples: np.asarray(run(samples)[0], dtype=np.float64), pool)
    if literal is not None:
        moved = np.maximum(moved, _largest(np.asarray(run(pool)[0] - literal(pool)[0], dtype=np.float64)))
    steadiest = _steadiest(moved, len(probe_samples((images,))[0]))
    samples = pool[steadiest]
    return _as_wide_as(_probe({input_name: samples}, run(samples), output_names=output_names), moved[steadiest])


def _moved(
    answer: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]], pool: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """How far each sample's answer moves when the sample is shaken."""
    found = answer(pool)
    moved = np.zeros(len(pool))
    generator = np.random.default_rng(0)
    for _ in range(_SHAKES):
        shaken = pool * (1 + _SHAKE * generator.uniform(-1, 1, pool.shape).astype(np.float32))
        moved = np.maximum(moved, _largest(found - answer(shaken)))
    return moved


def _steadiest(moved: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.intp]:
    return np.sort(np.argsort(moved, kind="stable")[:count])


def _as_wide_as(probe: Probe, moved: npt.NDArray[np.float64]) -> Probe:
    """The probe with a tolerance of at least twice what its own answers move."""
    return probe.model_copy(
        update={"absolute_tolerance": max(probe.absolute_tolerance, 2 * float(moved.max(initial=0.0)))}
    )


def _largest(differences: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The largest of each sample."""
    found: npt.NDArray[np.float64] = np.abs(differences).reshape(len(differences), -1).max(axis=1)
    return found


def _tensor(name: str, array: npt.NDArray[np.float32], *, decimals: int) -> Tensor:
    # Rounded in float64 for short text; the runtime computed with its nearest float32.
    values = np.round(array.astype(np.float64), decimals).ravel()
    return Tensor(name=name, shape=array.shape, values=tuple(float(value) for value in values))
