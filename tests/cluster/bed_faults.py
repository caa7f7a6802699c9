"""Faults of a whole bed that last while a block does: clocks, disks, the object store, the API server's authority."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bed_machine import Machine

YEAR = 365 * 86_400
_S3_PORT, _REFUSING_PORT = 7070, 7071
_BED = Path(__file__).parent / "bed"


@contextmanager
def stepped_clock(machine: Machine, node: str, steps: Sequence[float], *, seconds: float) -> Iterator[None]:
    """The wall clock of all containers of ``node`` is wrong by each of ``steps`` for ``seconds``, then by the last."""
    file = machine.run / node / "clock"
    try:
        for step in steps:
            _write_shift(file, step)
            time.sleep(seconds)
        yield
    finally:
        _write_shift(file, 0)


def _write_shift(file: Path, seconds: float) -> None:
    # In place, by one write: containers have mapped this very file.
    opened = os.open(file, os.O_WRONLY)
    try:
        os.pwrite(opened, struct.pack("=q", round(seconds * 1e9)), 0)
    finally:
        os.close(opened)


@contextmanager
def full_disk(machine: Machine, node: str) -> Iterator[None]:
    """The disk of ``node`` that holds its pods' volumes is full, for all but root."""
    folder = machine.run / node / "disk" / "others"
    filler = folder / "filler"
    # What others write meanwhile is met by the second file, in small pieces: the last free block is taken as well.
    fill = (
        f'fallocate --length "$(df --output=avail --block-size=1 {folder} | tail -n 1)" {filler}; '
        f"dd if=/dev/zero of={filler}.rest bs=512; true"
    )
    namespace = f"--mount={machine.run}/ns/{node}.mnt"
    user = ("setpriv", "--reuid=65533", "--regid=65533", "--clear-groups")
    try:
        subprocess.run(["nsenter", namespace, "--", *user, "sh", "-c", fill], check=True, stderr=subprocess.DEVNULL)
        yield
    finally:
        subprocess.run(["nsenter", namespace, "--", "rm", "-f", filler, f"{filler}.rest"], check=True)


@contextmanager
def refusing_store() -> Iterator[None]:
    """The object store answers 503 to everything; connections that it had are ended."""
    inside = ("nsenter", "--net=/run/netns/central")
    to_store = ("-p", "tcp", "--dport", str(_S3_PORT))
    rules = (
        ("-t", "nat", "PREROUTING", *to_store, "-j", "REDIRECT", "--to-ports", str(_REFUSING_PORT)),
        # Address translation is for new connections.
        ("-t", "filter", "INPUT", *to_store, "-j", "REJECT", "--reject-with", "tcp-reset"),
    )

    def change(action: str, *, check: bool) -> None:
        for _, table, chain, *rest in rules:
            subprocess.run([*inside, "iptables", "-w", "-t", table, action, chain, *rest], check=check)

    server = subprocess.Popen(
        [*inside, "setpriv", "--pdeathsig", "KILL", sys.executable, _BED / "unavailable.py", str(_REFUSING_PORT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline(), "the server that refuses did not start"
        change("-A", check=True)
        yield
    finally:
        change("-D", check=False)
        server.kill()
        server.communicate()


def rotate_authority(machine: Machine, *, announced: Callable[[str], bool] | None) -> None:
    """The API server's certificate is signed by another authority from here on, and so is what pods are told.

    With ``announced`` pods are told of both first, and the server changes as soon as it says so of the new
    authority's certificate. Without it everything changes at once, as after the loss of a key.
    """
    keys = machine.run / "pki"
    old, new = ("ca", "next-ca")
    if (keys / "apiserver.crt").read_bytes() != (keys / f"{old}-apiserver.crt").read_bytes():
        old, new = new, old
    certificates = {name: (keys / f"{name}.crt").read_text() for name in (old, new)}
    if announced is not None:
        _tell_pods(machine, certificates[old] + certificates[new])
        end = time.monotonic() + 120
        while not announced(certificates[new]):
            if time.monotonic() > end:
                raise AssertionError("pods were not told of the new authority within 120 s")
            time.sleep(1)
    for kind in ("key", "crt"):
        (keys / f"apiserver.{kind}").write_bytes((keys / f"{new}-apiserver.{kind}").read_bytes())
    machine.restart("central", "kube-apiserver")
    _tell_pods(machine, certificates[new])


def _tell_pods(machine: Machine, certificates: str) -> None:
    (machine.run / "pki" / "root-ca.crt").write_text(certificates)
    machine.restart("central", "kube-controller-manager")
