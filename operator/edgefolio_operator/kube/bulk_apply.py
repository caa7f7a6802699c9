"""Many writes, some at the same time: an objective must reach 500 endpoints soon, and one bad one must not stop it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from edgefolio_operator.kube.client import ApiError

Object = dict[str, Any]

#: So many writes are under way at most; the API server has others to serve.
AT_ONCE = 8


async def write_each(
    documents: Iterable[Object], write: Callable[[Object], Awaitable[None]], *, at_once: int = AT_ONCE
) -> dict[str, ApiError]:
    """``write`` all ``documents``, in their order, ``at_once`` at a time; those that were refused, by name.

    A refusal is about one object and does not hold up the others. Anything else (no answer, a server that is busy or
    broken, a lease that was lost) is about all of them: nothing more is begun, and it is raised when what is under way
    has ended.
    """
    waiting = iter(documents)
    refused: dict[str, ApiError] = {}
    broken: list[Exception] = []

    async def one_after_the_other() -> None:
        for document in waiting:
            try:
                await write(document)
            except ApiError as error:
                if is_about_one_object(error):
                    refused[document["metadata"]["name"]] = error
                else:
                    broken.append(error)
            except Exception as error:
                broken.append(error)
            if broken:
                return

    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    if broken:
        raise broken[0]
    return refused


def is_about_one_object(error: ApiError) -> bool:
    """Whether another object may fare better: this one was refused for what it is or says."""
    return 400 <= error.status < 500 and error.status not in (401, 408, 429) and not error.is_of_an_ending_namespace
