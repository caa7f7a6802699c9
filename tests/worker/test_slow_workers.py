"""Workers that compute slowly, hang, fail or come and go: every request is answered, by one variant whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from served_splits import served_split
from working_sets import FALLBACK, MODEL, PATIENT, answer, images, tag_of, wait_for, working_set

from edgefolio_worker.serving.worker import Worker

#: Milliseconds: what a job of the small nets is given where it is to be late.
SHORT = 1500.0


def slowed(worker: Worker, before: Callable[[], None]) -> Callable[[], None]:
    """Have every segment of a worker wait for ``before``; the function returned undoes it."""
    shard = worker._engine.shard
    run = shard.run

    def slow(segment: int, inputs: Any) -> Any:
        before()
        return run(segment, inputs)

    shard.run = slow  # type: ignore[method-assign]

    def undo() -> None:
        shard.run = run  # type: ignore[method-assign]

    return undo


def test_a_peer_that_is_slow_is_given_up_and_after_two_jobs_nobody_waits(tmp_path: Path) -> None:
    with working_set(tmp_path, abandon=SHORT) as site:
        first, second = site.start_all()
        # Three segments: each alone is quicker than the abandon time, all together are not.
        undo = slowed(second, lambda: time.sleep(0.7 * SHORT / 1e3))
        for _ in range(2):
            assert tag_of(answer(first, images(1))) == 1
        status = first.status()
        assert status.answers == {("fallback", "late"): 2}
        assert status.reason == "abandoned"
        began = time.monotonic()
        assert tag_of(answer(first, images(1))) == 1
        assert time.monotonic() - began < SHORT / 1e3
        undo()
        site.wait_linked(0)
        assert tag_of(answer(first, images(1))) == 9


def test_a_peer_that_hangs_is_noticed_by_the_age_of_its_task_though_it_answers_pings(tmp_path: Path) -> None:
    with working_set(tmp_path, abandon=SHORT) as site:
        first, second = site.start_all()
        goes_on = threading.Event()
        undo = slowed(second, goes_on.wait)
        assert tag_of(answer(first, images(1))) == 1
        wait_for(lambda: first.status().reason == "hung", first.status)
        assert second.status().oldest_task_milliseconds > SHORT
        assert first.status().peers[0].is_linked
        undo()
        goes_on.set()
        site.wait_linked(0)
        assert tag_of(answer(first, images(1))) == 9


def test_a_segment_that_fails_is_answered_by_the_fallback(tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("a segment that cannot be computed")

    with working_set(tmp_path, abandon=PATIENT) as site:
        first, _ = site.start_all()
        undo = slowed(first, fail)
        for _ in range(2):
            assert tag_of(answer(first, images(1))) == 1
        assert first.status().answers == {("fallback", "failed"): 2}
        assert first.status().reason == "abandoned"
        undo()
        site.wait_linked(0)


def test_workers_that_come_and_go_under_load_lose_no_request(tmp_path: Path) -> None:
    with working_set(tmp_path, served_split(workers=3), abandon=SHORT) as site:
        workers = site.start_all()
        values = images(2, seed=3)
        split, done = site.expected(values), threading.Event()
        single = workers[0]._fallback.run(["logits"], {"image": values})["logits"]
        counts = {"split": 0, "fallback": 0, "nobody": 0}
        lock = threading.Lock()

        def ask() -> None:
            while not done.is_set():
                found = answer(site.workers[0], values)
                by = next(
                    (
                        name
                        for name, expected in (("split", split), ("fallback", single))
                        if np.allclose(found, expected, rtol=0, atol=1e-3)
                    ),
                    "nobody",
                )
                with lock:
                    counts[by] += 1

        clients = [threading.Thread(target=ask) for _ in range(2)]
        for client in clients:
            client.start()
        try:
            for round_ in range(6):
                site.wait_linked()
                before = counts["split"]
                wait_for(lambda least=before: counts["split"] > least + 5)
                rank = 1 + round_ % 2
                if round_ % 3 == 2:
                    # Cut, not said: as by a process that is killed.
                    hub = site.workers[rank]._hub
                    assert hub is not None
                    for link in hub._links.all():
                        link.socket.shutdown(2)
                else:
                    site.workers[rank].close()
                    before = counts["fallback"]
                    wait_for(lambda least=before: counts["fallback"] > least)
                    site.start(rank)
        finally:
            done.set()
            for client in clients:
                client.join(timeout=60)
        assert counts["nobody"] == 0
        assert min(counts["split"], counts["fallback"]) > 5


def test_a_worker_that_starts_anew_goes_on_above_its_old_numbers(tmp_path: Path) -> None:
    with working_set(tmp_path) as site:
        first, second = site.start_all()
        before = first._engine._table._count
        first.close()
        again = site.start(0)
        assert again._engine._table._count > before
        site.wait_linked()
        assert [tag_of(answer(worker, images(1))) for worker in (again, second)] == [9, 9]
        assert (site.folder(0) / MODEL / str(FALLBACK)).is_dir()
