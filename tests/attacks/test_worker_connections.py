"""Whoever reaches a worker's port: without the certificate that its set names nobody is heard, and serving goes on."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from played_peer import PlayedPeer, knocked
from served_splits import served_split
from working_sets import WorkingSet, answer, images, tag_of, wait_for, working_set

from edgefolio.errors import UserError
from edgefolio_edge.peers.identity import CERTIFICATE_NAME, KEY_NAME, make_identity
from edgefolio_worker.network.door import MOST_STRANGERS
from edgefolio_worker.protocol.frames import Kind
from edgefolio_worker.records.set_file import SetError
from edgefolio_worker.serving.worker import Worker


def identity(folder: Path, **options: datetime.timedelta) -> tuple[str, str]:
    make_identity(folder, **options)
    return str(folder / CERTIFICATE_NAME), str(folder / KEY_NAME)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[WorkingSet]:
    """Two workers with identities; nothing is started."""
    identities = tuple(identity(tmp_path / f"identity-{rank}") for rank in range(2))
    with working_set(tmp_path / "set", identities=identities) as found:
        yield found


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def caller(own: tuple[str, str] | None, *, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """A context that believes anybody, and shows ``own``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version
    if own is not None:
        context.load_cert_chain(*own)
    return context


def second_alone(site: WorkingSet) -> Worker:
    site.order(1)
    worker = site.start(1)
    knocked(site.ports[1]).close()
    return worker


def test_workers_with_the_right_certificates_answer_together(tmp_path: Path) -> None:
    identities = tuple(identity(tmp_path / f"identity-{rank}") for rank in range(3))
    # Maps of several records of TLS: 8 channels of 12 x 12 numbers for 16 samples.
    split = served_split(workers=3, width=8)
    with working_set(tmp_path / "set", split, identities=identities) as site:
        for worker in site.start_all():
            for samples in (1, 16):
                values = images(samples, seed=samples)
                np.testing.assert_allclose(answer(worker, values), site.expected(values), rtol=0, atol=1e-4)


@pytest.mark.parametrize("presented", ["none", "anothers", "expired"])
def test_whoever_shows_no_certificate_of_the_set_is_not_heard(site: WorkingSet, tmp_path: Path, presented: str) -> None:
    worker = second_alone(site)
    own = None if presented == "none" else identity(tmp_path / "stranger")
    if presented == "expired":
        # The very certificate that the set names, but its time is over.
        own = identity(tmp_path / "old", valid=datetime.timedelta(days=-1))
        first = replace(site.set_of(1).peers[0], certificate=Path(own[0]).read_text())
        site.order(1, peers=(first,))
        wait_for(lambda: worker.status().reason == "forming" and worker._set is not None)
        knocked(site.ports[1]).close()
    before = worker.status().ended.get("tls", 0)
    with contextlib.suppress(OSError), PlayedPeer(site, context=caller(own)) as played:
        # The caller's side of TLS 1.3 is done before the other one has seen its certificate.
        played.send(Kind.HELLO, played.hello())
        assert played.ends()
    wait_for(lambda: worker.status().ended.get("tls", 0) > before, worker.status)
    assert not worker.status().peers[0].is_linked
    assert tag_of(answer(worker, images(1))) == 1


def test_a_certificate_stands_for_its_own_rank_alone(tmp_path: Path) -> None:
    identities = tuple(identity(tmp_path / f"identity-{rank}") for rank in range(3))
    with working_set(tmp_path / "set", served_split(workers=3), identities=identities) as site:
        site.order(2)
        worker = site.start(2)
        knocked(site.ports[2]).close()
        # Worker 1's certificate, and the name of worker 0.
        site.ports[1] = site.ports[2]
        with PlayedPeer(site, context=caller(identities[1])) as played:
            played.send(Kind.HELLO, played.hello(workers=3))
            header, _ = played.receive()
            assert header.kind is Kind.REFUSE
        wait_for(lambda: worker.status().ended.get("refused-rank") == 1, worker.status)


def test_exchanged_certificates_link_nobody(site: WorkingSet) -> None:
    one, two = site.identities
    # Each shows the other's.
    site.order(0, certificate=two[0], key=two[1])
    site.order(1, certificate=one[0], key=one[1])
    first, second = site.start(0), site.start(1)
    wait_for(lambda: "tls" in first.status().ended or "certificate" in first.status().ended, site.told)
    assert [tag_of(answer(worker, images(1))) for worker in (first, second)] == [1, 1]
    for rank in range(2):
        site.order(rank)
    site.wait_linked()
    assert [tag_of(answer(worker, images(1))) for worker in (first, second)] == [9, 9]


def test_neither_an_older_tls_nor_none_at_all_is_spoken(site: WorkingSet) -> None:
    worker = second_alone(site)
    with pytest.raises(OSError):
        PlayedPeer(site, context=caller(site.identities[0], version=ssl.TLSVersion.TLSv1_2))
    with PlayedPeer(site) as played:
        played.send(Kind.HELLO, played.hello())
        with contextlib.suppress(Exception):
            played.receive()
    wait_for(lambda: worker.status().ended.get("tls", 0) >= 2, worker.status)
    assert not worker.status().peers[0].is_linked


def test_plain_connections_stay_on_this_machine(site: WorkingSet) -> None:
    plain = {"certificate": "", "key": ""}
    peer = replace(site.set_of(0).peers[0], certificate="")
    assert not replace(site.set_of(0), **plain, peers=(peer,)).is_encrypted
    for changes in (
        {"listen": "0.0.0.0:8004"},
        {"peers": (replace(peer, address="10.0.0.1:8004"),)},
        {"listen": "192.168.0.1:8004"},
    ):
        with pytest.raises(SetError, match="loopback alone"):
            replace(site.set_of(0), **{**plain, "peers": (peer,), **changes})
    with pytest.raises(SetError, match="for all or for none"):
        replace(site.set_of(0), key="")


def test_only_the_owner_reads_the_key_and_an_identity_is_never_overwritten(tmp_path: Path) -> None:
    _, key = identity(tmp_path / "mine")
    assert Path(key).stat().st_mode & 0o077 == 0
    content = Path(key).read_bytes()
    with pytest.raises(UserError, match="there is an identity already"):
        make_identity(tmp_path / "mine")
    assert Path(key).read_bytes() == content


def test_a_key_that_is_not_there_links_nobody_until_it_is(site: WorkingSet) -> None:
    key = Path(site.identities[0][1])
    content = key.read_bytes()
    key.unlink()
    for rank in range(2):
        site.order(rank)
        site.start(rank)
    first = site.workers[0]
    wait_for(lambda: first.status().reason == "set-identity", first.status)
    assert "key" in (first.status().problem or "")
    assert tag_of(answer(first, images(1))) == 1
    key.write_bytes(content)
    site.wait_linked()


def test_a_flood_of_connections_takes_no_memory_and_the_linked_serve_on(site: WorkingSet) -> None:
    first, second = site.start_all()
    files = open_files()
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stranger = stack.enter_context(socket.socket())
            stranger.setblocking(False)
            # The kernel keeps those that are not let in yet, and then turns them away.
            stranger.connect_ex(("127.0.0.1", site.ports[1]))
        strangers = open_files() - files
        for number in range(50):
            values = images(2, seed=number)
            np.testing.assert_allclose(answer(first, values), site.expected(values), rtol=0, atol=1e-4)
        hub = second._hub
        assert hub is not None
        wait_for(lambda: sum(second.status().ended.values()) > 0)
        assert len(hub._strangers) <= MOST_STRANGERS
        assert open_files() - files <= strangers + MOST_STRANGERS + 1
    assert [worker.status().answers for worker in (first, second)] == [{("split", ""): 50}, {}]
