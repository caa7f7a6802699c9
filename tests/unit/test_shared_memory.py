"""Shared memory of a version, from its signature."""

from __future__ import annotations

import pytest

from edgefolio.manifest import Signature, TensorSignature
from edgefolio.shared_memory import largest_batch, shared_memory_bytes

_MEBIBYTE = 1 << 20


def _signature(*, datatype: str = "FP32", shape: tuple[int, ...] = (1, 512, 512)) -> Signature:
    return Signature(
        inputs=(TensorSignature(name="image", datatype=datatype, shape=shape),),
        outputs=(TensorSignature(name="logits", datatype="FP32", shape=(10,)),),
    )


@pytest.mark.parametrize(
    ("batches", "measured"),
    [((1,), 4), ((20,), 25), ((20, 20, 21, 43, 60, 64), 69), ((20, 21, 22, 23), 72), ((10,) * 16, 26)],
)
def test_no_less_than_a_region_was_measured_to_take(batches: tuple[int, ...], measured: int) -> None:
    """1 MiB a sample, Triton 2.51; the last two with as many clients at once."""
    assert shared_memory_bytes(signature=_signature(), batch=max(batches), resident=1) >= measured * _MEBIBYTE


def test_it_follows_batch_datatype_and_resident_versions() -> None:
    one = shared_memory_bytes(signature=_signature(), batch=64, resident=1)
    assert shared_memory_bytes(signature=_signature(), batch=64) == 2 * one
    assert shared_memory_bytes(signature=_signature(datatype="FP64"), batch=64, resident=1) > 1.8 * one
    assert shared_memory_bytes(signature=_signature(), batch=128, resident=1) > 1.8 * one


def test_a_dynamic_size_counts_as_one_and_a_scalar_as_one_element() -> None:
    dynamic = shared_memory_bytes(signature=_signature(shape=(-1, 512, 512)), batch=8)
    assert dynamic == shared_memory_bytes(signature=_signature(), batch=8)
    assert shared_memory_bytes(signature=_signature(shape=()), batch=1, resident=1) < 16 * _MEBIBYTE


@pytest.mark.parametrize("mebibytes", [64, 128, 512, 4096])
def test_two_versions_with_the_largest_batch_fit_and_one_sample_more_does_not(mebibytes: int) -> None:
    signature, limit = _signature(), mebibytes * _MEBIBYTE
    batch = largest_batch(signature=signature, limit_bytes=limit)
    assert shared_memory_bytes(signature=signature, batch=batch) <= limit
    larger = shared_memory_bytes(signature=signature, batch=batch + 1)
    assert larger > limit or batch == signature.max_batch_size


def test_the_largest_batch_is_never_none_and_never_more_than_the_model_takes() -> None:
    assert largest_batch(signature=_signature(), limit_bytes=1) == 1
    assert largest_batch(signature=_signature(shape=(4,)), limit_bytes=1 << 40) == 1024
