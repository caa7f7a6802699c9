"""Events are capped: so many at once, so many a second after that, for each object and for all together."""

from __future__ import annotations

from edgefolio_operator.kube.event_recorder import TokenBucket


def test_a_bucket_is_spent_and_comes_back() -> None:
    bucket = TokenBucket(burst=3, per_second=0.5, now=100)
    assert bucket.is_full(100)
    assert [bucket.take(100) for _ in range(4)] == [True, True, True, False]
    assert not bucket.is_full(101)
    assert not bucket.take(101)
    assert bucket.take(102)
    assert not bucket.take(102)
    assert bucket.is_full(108)
    # And it never holds more than it may.
    assert [bucket.take(10_000) for _ in range(4)] == [True, True, True, False]
