"""Workers over real sockets: answers equal the reference executor's, and come from one variant whole."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from served_splits import served_split, whole_model
from working_sets import FALLBACK, OTHER_FALLBACK, answer, free_port, images, tag_of, wait_for, working_set

from edgefolio_worker.records.status_file import WorkerStatus
from edgefolio_worker.serving.worker import WorkerError


@pytest.mark.parametrize(("workers", "wire"), [(2, "Float32"), (3, "UInt8"), (4, "Float32")])
def test_every_entry_answers_as_the_reference_executor_does(tmp_path: Path, workers: int, wire: str) -> None:
    with working_set(tmp_path, served_split(workers=workers, wire=wire)) as site:
        for worker in site.start_all():
            for samples in (1, 3, 16):
                values = images(samples, seed=samples)
                # A number between two levels of the wire may round to either.
                tolerance = 1e-4 if wire == "Float32" else 0.05
                np.testing.assert_allclose(answer(worker, values), site.expected(values), rtol=0, atol=tolerance)
        for worker in site.workers.values():
            status = worker.status()
            assert status.answers == {("split", ""): 3}
            assert status.computed >= 3 * workers
            assert all(peer.bytes_in and peer.bytes_out for peer in status.peers)


def test_workers_compute_together_what_the_whole_net_computes_alone(tmp_path: Path) -> None:
    whole = onnxruntime.InferenceSession(whole_model(workers=3), providers=["CPUExecutionProvider"])
    with working_set(tmp_path, served_split(workers=3)) as site:
        for worker in site.start_all():
            values = images(5, seed=11)
            np.testing.assert_allclose(answer(worker, values), whole.run(None, {"image": values})[0], rtol=0, atol=0.01)


def test_all_entries_at_once_keep_all_workers_busy_and_mix_nothing(tmp_path: Path) -> None:
    with working_set(tmp_path, served_split(workers=3)) as site:
        workers, wrong = site.start_all(), []

        def ask(rank: int) -> None:
            for number in range(60):
                values = images(1 + number % 3, seed=1000 * rank + number)
                if not np.allclose(answer(workers[rank], values), site.expected(values), rtol=0, atol=1e-4):
                    wrong.append((rank, number))

        threads = [threading.Thread(target=ask, args=(rank,)) for rank in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=120)
        assert wrong == []
        assert [worker.status().answers for worker in workers] == [{("split", ""): 60}] * 3
        # A flag that stands for ever would let frames wait for the next ping.
        hubs = [worker._hub for worker in workers if worker._hub is not None]
        assert len(hubs) == 3
        wait_for(lambda: not any(hub._is_woken for hub in hubs))


def test_a_worker_alone_is_ready_at_once_and_its_fallback_answers(tmp_path: Path) -> None:
    with working_set(tmp_path) as site:
        worker = site.start(0)
        assert tag_of(answer(worker, images(2))) == 1
        status = worker.status()
        assert (status.is_linked, status.reason) == (False, "set-missing")
        site.order(0)
        wait_for(lambda: worker.status().set_number == 7)
        assert tag_of(answer(worker, images(2))) == 1
        assert sum(worker.status().answers.values()) == 2


def test_a_request_that_is_too_large_for_a_peer_goes_to_the_fallback(tmp_path: Path) -> None:
    with working_set(tmp_path) as site:
        for rank, most in ((0, 16), (1, 4)):
            site.order(rank)
            site.start(rank, max_samples=most)
        site.wait_linked()
        assert tag_of(answer(site.workers[0], images(4))) == 9
        assert tag_of(answer(site.workers[0], images(5))) == 1
        assert site.workers[0].status().answers == {("split", ""): 1, ("fallback", "batch"): 1}


def test_another_fallback_is_taken_while_links_stay(tmp_path: Path) -> None:
    with working_set(tmp_path) as site:
        worker = site.start_all()[0]
        site.order(0, fallback=OTHER_FALLBACK)
        wait_for(lambda: worker.status().fallback == OTHER_FALLBACK)
        assert worker.status().is_linked
        # One that is not there: the former stays.
        site.order(0, fallback=177)
        site.workers[1].close()
        wait_for(lambda: not worker.status().is_linked)
        assert tag_of(answer(worker, images(1))) == 2
        assert worker.status().fallback == OTHER_FALLBACK


def test_a_set_file_that_is_missing_half_written_or_of_another_model_is_picked_up_when_mended(tmp_path: Path) -> None:
    with working_set(tmp_path) as site:
        worker = site.start_all()[0]
        file = site.orders(0) / "set.json"
        whole = file.read_bytes()
        for content, reason in (
            (whole[:100], "set-unreadable"),
            (b"", "set-unreadable"),
            (b"[" * 100_000, "set-unreadable"),
            (whole.replace(b'"revealing"', b'"another"'), "set-model"),
            (whole.replace(site.split.plan.sha256.encode(), b"0" * 64), "set-plan"),
        ):
            file.write_bytes(content)
            wait_for(lambda wanted=reason: worker.status().reason == wanted, worker.status)
            assert tag_of(answer(worker, images(1))) == 1
            assert worker.status().problem
        file.unlink()
        wait_for(lambda: worker.status().reason == "set-missing", worker.status)
        site.order(0)
        site.wait_linked()
        assert tag_of(answer(worker, images(1))) == 9
        assert worker.status().problem is None


def test_a_worker_of_another_set_is_refused_until_both_have_the_same_number(tmp_path: Path) -> None:
    with working_set(tmp_path) as site:
        site.order(0, number=8)
        site.order(1)
        first, second = site.start(0), site.start(1)
        wait_for(lambda: first.status().reason == "refused-set", site.told)
        wait_for(lambda: second.status().reason == "refused-set", site.told)
        assert [tag_of(answer(worker, images(1))) for worker in (first, second)] == [1, 1]
        site.order(1, number=8)
        site.wait_linked()
        assert [tag_of(answer(worker, images(1))) for worker in (first, second)] == [9, 9]


def test_workers_of_two_plans_refuse_each_other(tmp_path: Path) -> None:
    with (
        working_set(tmp_path / "one") as site,
        working_set(tmp_path / "two", served_split(tag=8)) as other,
    ):
        other.ports = site.ports
        site.order(0)
        other.order(1)
        first, second = site.start(0), other.start(1)
        for worker in (first, second):
            wait_for(lambda each=worker: each.status().reason == "refused-plan", worker.status)
            assert tag_of(answer(worker, images(1))) == 1


def test_workers_that_are_not_linked_with_each_other_are_asked_by_nobody(tmp_path: Path) -> None:
    with working_set(tmp_path, served_split(workers=3)) as site:
        for rank in range(3):
            site.order(rank)
        # Worker 1 looks for worker 2 where nobody is.
        peers = tuple(
            replace(peer, address=f"127.0.0.1:{free_port()}") if peer.rank == 2 else peer
            for peer in site.set_of(1).peers
        )
        site.order(1, peers=peers)
        first, *_ = [site.start(rank) for rank in range(3)]
        wait_for(lambda: first.status().reason == "apart", first.status)
        assert tag_of(answer(first, images(1))) == 1
        site.order(1)
        site.wait_linked()
        assert tag_of(answer(first, images(1))) == 9


def test_a_port_that_is_still_taken_is_tried_again(tmp_path: Path) -> None:
    with working_set(tmp_path) as site, socket.socket() as taken:
        taken.bind(("127.0.0.1", site.ports[1]))
        taken.listen()
        site.order(0)
        site.order(1)
        site.start(0)
        second = site.start(1)
        wait_for(lambda: "cannot listen" in (second.status().problem or ""), second.status)
        assert tag_of(answer(second, images(1))) == 1
        taken.close()
        site.wait_linked()
        assert second.status().problem is None


def test_unloading_says_bye_and_whoever_starts_anew_joins_again(tmp_path: Path) -> None:
    with working_set(tmp_path) as site:
        first, second = site.start_all()
        second.close()
        wait_for(lambda: first.status().ended.get("bye") == 1, first.status)
        assert tag_of(answer(first, images(1))) == 1
        site.start(1)
        site.wait_linked()
        assert [tag_of(answer(worker, images(1))) for worker in (first, site.workers[1])] == [9, 9]


def test_the_status_file_says_what_the_worker_says(tmp_path: Path) -> None:
    with working_set(tmp_path) as site:
        first, _ = site.start_all()
        answer(first, images(1))
        wait_for(lambda: (found := WorkerStatus.read(site.orders(0), 103)) is not None and found.answers != {})
        found = WorkerStatus.read(site.orders(0), 103)
        assert found is not None
        assert (found.is_linked, found.rank, found.fallback, found.set_number) == (True, 0, FALLBACK, 7)
        assert found.answers == {("split", ""): 1}
        assert WorkerStatus.from_bytes(found.to_bytes()) == found
        assert WorkerStatus.read(site.orders(0), 104) is None
    assert WorkerStatus.read(site.orders(0), 103) is None


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        ("plan.json", "digest"),
        ("worker.json", "cannot be read"),
        ("shard-0/segment-1.onnx", "sha256"),
        ("shard-0/probe.safetensors", "probe"),
    ],
)
def test_a_version_whose_files_are_not_right_is_not_opened(tmp_path: Path, file: str, problem: str) -> None:
    with working_set(tmp_path) as site:
        path = site.folder(0) / "revealing" / "103" / file
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(WorkerError, match=problem):
            site.start(0)


def test_a_segment_that_computes_something_else_is_not_opened(tmp_path: Path) -> None:
    right, wrong = served_split(tag=9), served_split(tag=8)
    with working_set(tmp_path, right) as site:
        probe = site.folder(0) / "revealing" / "103" / "shard-0" / "probe.safetensors"
        probe.write_bytes(wrong.files["shard-0/probe.safetensors"])
        with pytest.raises(WorkerError, match="differs by"):
            site.start(0)


def test_without_anything_to_fall_back_to_a_version_is_not_opened(tmp_path: Path) -> None:
    with working_set(tmp_path) as site:
        (site.folder(0) / "revealing" / str(FALLBACK) / "model.onnx").unlink()
        with pytest.raises(WorkerError, match="fallback 101"):
            site.start(0)
        # A set that names one that is not there: the version's own one is taken.
        (site.folder(1) / "revealing" / str(OTHER_FALLBACK) / "model.onnx").unlink()
        site.order(1, fallback=OTHER_FALLBACK)
        assert site.start(1).status().fallback == FALLBACK
