"""Concurrent bulk apply: an objective must reach 500 endpoints soon, and one refusal must not stop it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from edgefolio_operator.kube.client import ApiError
from edgefolio_operator.kube.objects import Object

#: Writes under way at most; the API server has others to serve.
CONCURRENCY = 8


async def apply_each(
    documents: Iterable[Object], apply: Callable[[Object], Awaitable[None]], *, concurrency: int = CONCURRENCY
) -> dict[str, ApiError]:
    """``apply`` all ``documents`` in their order, ``concurrency`` at a time; the refusals, by name of the object.

    A refusal is about one object and does not hold up the others. Anything else (no answer, a server that is busy or
    broken, a lost lease) is about all of them: no further write begins, and it is raised when those under way
    have ended.
    """
    waiting = iter(documents)
    refused: dict[str, ApiError] = {}
    failures: list[Exception] = []

    async def worker() -> None:
        for document in waiting:
            try:
                await apply(document)
            except ApiError as error:
                if concerns_one_object(error):
                    refused[document["metadata"]["name"]] = error
                else:
                    failures.append(error)
            except Exception as error:
                failures.append(error)
            if failures:
                return

    await asyncio.gather(*(worker() for _ in range(concurrency)))
    if failures:
        raise failures[0]
    return refused


def concerns_one_object(error: ApiError) -> bool:
    """Whether an error is about one object's content, so that others may be accepted."""
    return 400 <= error.status < 500 and error.status not in (401, 408, 429) and not error.is_of_an_ending_namespace
