"""Threads where there are fewer cores than the portfolio says: a cpuset of one, or a quota, as containers get them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from triton_portfolios import MODEL, images, revealed_tag
from triton_site import Site

from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.triton.processes import stub_of_version
from edgefolio_edge.triton.switcher import Switcher

GROUPS = Path("/sys/fs/cgroup")
CORES = len(os.sched_getaffinity(0))
ASKED = 4


def threads_after(site: Site, rank: int, *, asked: int) -> int:
    """Threads of the backend process once the variant ``rank`` was loaded with ``asked`` threads, and has answered."""
    store = ModelStore(site.store.root, model=MODEL, threads=asked)
    outcome = Switcher(site.control, store).switch(site.placement(rank))
    assert outcome.succeeded, outcome.cause
    assert revealed_tag(site.control.infer(MODEL, {"image": images()}).outputs["logits"]) == rank
    stub = stub_of_version(site.server.identity, 100 + rank)
    assert stub is not None
    # Some live for a moment only.
    return min(_readings(psutil.Process(stub.pid)))


def _readings(process: psutil.Process) -> Iterator[int]:
    for _ in range(20):
        yield process.num_threads()
        time.sleep(0.1)


@contextlib.contextmanager
def on_one_core(site: Site) -> Iterator[None]:
    """All threads of the server on one core: what it starts is bound as well."""
    tasks = [int(path.name) for path in Path(f"/proc/{site.server.identity.pid}/task").iterdir()]
    before = os.sched_getaffinity(site.server.identity.pid)
    try:
        for task in tasks:
            os.sched_setaffinity(task, {min(before)})
        yield
    finally:
        for task in tasks:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(task, before)


@contextlib.contextmanager
def with_a_quota_of_one_core(site: Site) -> Iterator[None]:
    """The server in a cgroup that may use the time of one core on all of them."""
    is_second = (GROUPS / "cgroup.controllers").exists()
    parent = GROUPS if is_second else GROUPS / "cpu"
    group = parent / f"edgefolio-test-{os.getpid()}"
    try:
        group.mkdir()
        if is_second:
            (group / "cpu.max").write_text("100000 100000")
        else:
            (group / "cpu.cfs_period_us").write_text("100000")
            (group / "cpu.cfs_quota_us").write_text("100000")
        (group / "cgroup.procs").write_text(str(site.server.identity.pid))
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"a cgroup cannot be made here: {error}")
    try:
        yield
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (parent / "cgroup.procs").write_text(pid)
        group.rmdir()


@pytest.mark.skipif(CORES < 2, reason="there is one core anyway")
@pytest.mark.parametrize("bound", [on_one_core, with_a_quota_of_one_core])
def test_four_threads_on_one_core_are_one(
    site: Site, bound: Callable[[Site], contextlib.AbstractContextManager[None]]
) -> None:
    single = threads_after(site, 1, asked=1)
    # The runtime's pool has one thread less than that: the one that asks computes, too.
    assert threads_after(site, 2, asked=ASKED) == single + min(ASKED, CORES) - 1
    with bound(site):
        assert threads_after(site, 3, asked=ASKED) == single
    # What binds is asked anew at each load.
    assert threads_after(site, 4, asked=ASKED) == single + min(ASKED, CORES) - 1
