"""Options of Triton that no other user can read: they never stand in its command line.

Triton takes the key of its control interface in its arguments alone, and every local user may read a command line
(``/proc/PID/cmdline``). A process's environment may be read by its own user alone, so the options travel there. The
process stops when it becomes Triton, before its first instruction (``PTRACE_TRACEME``); its pointers to placeholders in
the command line are then set to the options in its environment, and it goes on. Once Triton answers it has copied them,
and they are overwritten, so that the backends it starts inherit nothing.

A kernel that refuses this (Yama's ``ptrace_scope`` 2 or 3, some sandboxes) leaves the options in the command line until
Triton answers; then they are overwritten there, if the kernel lets us.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from edgefolio_edge.triton.processes import PROCESSES

_VARIABLE = "EDGEFOLIO_SECRET_OPTION_"
_PLACEHOLDER = "--edgefolio-secret-option="
_PTRACE_DETACH = 17
_STACK_BYTES = 1 << 17

#: Arguments: parent's id or 0, descriptor for its report, program and its arguments. The parent's death ends it where
#: an id is given. It asks to be traced by its parent and becomes the program; where it may not be traced, the options
#: take their places in the command line.
_LAUNCHER = f"""
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
parent, report = int(sys.argv[1]), int(sys.argv[2])
if parent:
    libc.prctl(1, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
libc.ptrace.argtypes = [ctypes.c_long] * 4
libc.ptrace.restype = ctypes.c_long
traced = os.environ.pop("EDGEFOLIO_TRACED") == "1" and libc.ptrace(0, 0, 0, 0) == 0
program = sys.argv[3:]
if not traced:
    program = [os.environ.pop("{_VARIABLE}" + part[{len(_PLACEHOLDER)}:], part)
               if part.startswith("{_PLACEHOLDER}") else part for part in program]
os.umask(0o077)
os.write(report, b"t" if traced else b"n")
os.close(report)
os.execv(program[0], program)
"""


class _Memory(NamedTuple):
    """Where arguments and environment of a process lie."""

    arguments: int
    arguments_end: int
    environment: int
    environment_end: int


class SecretOptionsExposed(OSError):  # noqa: N818 - a state of the machine, not a mistake
    """The kernel does not let us hide options."""


def start(
    command: Sequence[str],
    secret_options: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: int,
    directory: Path,
    die_with_parent: bool,
) -> tuple[subprocess.Popen[bytes], bool]:
    """Start ``command`` with ``secret_options``, and return it and whether they were hidden from the first moment."""
    for traced in (True, False):
        process, is_traced = _launched(
            command, secret_options, environment, traced, log=log, directory=directory, die_with_parent=die_with_parent
        )
        if not is_traced:
            return process, False
        try:
            _point_to_environment(process.pid, len(secret_options))
        except (OSError, ValueError):
            process.kill()
            process.wait()
            continue
        return process, True
    raise AssertionError("the second way always returns")


def overwrite(pid: int, secrets: Sequence[str]) -> None:
    """Overwrite ``secrets`` in arguments and environment of process ``pid``, which has copied them.

    Raises :class:`SecretOptionsExposed` if one can still be read in its command line.
    """
    problem: Exception | None = None
    try:
        memory = _memory_of(pid)
        with (PROCESSES / str(pid) / "mem").open("r+b", buffering=0) as stream:
            for begin, end in (memory[:2], memory[2:]):
                stream.seek(begin)
                content = stream.read(end - begin)
                for secret in secrets:
                    for position in _positions(content, secret.encode()):
                        stream.seek(begin + position)
                        stream.write(b"x" * len(secret))
    except (OSError, ValueError) as error:
        problem = error
    with contextlib.suppress(OSError):
        shown = (PROCESSES / str(pid) / "cmdline").read_bytes()
        if any(secret.encode() in shown for secret in secrets):
            raise SecretOptionsExposed(f"the key stands in the command line of process {pid}: {problem}") from problem


def _launched(
    command: Sequence[str],
    secret_options: Sequence[str],
    environment: Mapping[str, str],
    traced: bool,
    *,
    log: int,
    directory: Path,
    die_with_parent: bool,
) -> tuple[subprocess.Popen[bytes], bool]:
    """The launcher, once it is about to become ``command``, and whether it is traced."""
    receive, report = os.pipe()
    numbers = range(len(secret_options))
    try:
        process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid() if die_with_parent else 0), str(report)),
                *command,
                *(f"{_PLACEHOLDER}{number}" for number in numbers),
            ],
            env={
                **environment,
                **{f"{_VARIABLE}{number}": secret_options[number] for number in numbers},
                "EDGEFOLIO_TRACED": "1" if traced else "0",
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=directory,
            pass_fds=(report,),
            # Its own session: Ctrl-C in a terminal reaches the agent, which stops the server in order.
            start_new_session=True,
        )
    finally:
        os.close(report)
    try:
        return process, os.read(receive, 1) == b"t"
    finally:
        os.close(receive)


def _point_to_environment(pid: int, count: int) -> None:
    """Let the process, which stops before its first instruction, find its options in its environment.

    For the thread that started it: no other one may trace it.
    """
    _, status = os.waitpid(pid, 0)
    if not os.WIFSTOPPED(status) or os.WSTOPSIG(status) != signal.SIGTRAP:
        raise ValueError(f"process {pid} did not stop: {status}")
    memory = _memory_of(pid)
    with (PROCESSES / str(pid) / "mem").open("r+b", buffering=0) as stream:

        def read(begin: int, end: int) -> bytes:
            stream.seek(begin)
            return stream.read(end - begin)

        arguments = read(memory.arguments, memory.arguments_end)
        environment = read(memory.environment, memory.environment_end)
        # The array of pointers lies below the strings, on the same stack.
        below = memory.arguments - _STACK_BYTES
        below = max(below, _beginning_of_mapping(pid, memory.arguments))
        pointers = read(below, memory.arguments)
        for number in range(count):
            placeholder = memory.arguments + arguments.index(f"\0{_PLACEHOLDER}{number}\0".encode()) + 1
            name = f"\0{_VARIABLE}{number}=".encode()
            option = memory.environment + (b"\0" + environment).index(name) + len(name) - 1
            stream.seek(below + pointers.index(struct.pack("@P", placeholder)))
            stream.write(struct.pack("@P", option))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long] * 4
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(_PTRACE_DETACH, pid, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the process cannot be detached from")


def _memory_of(pid: int) -> _Memory:
    text = (PROCESSES / str(pid) / "stat").read_text(errors="replace")
    fields = text.rpartition(")")[2].split()
    return _Memory(*(int(field) for field in fields[45:49]))


def _beginning_of_mapping(pid: int, address: int) -> int:
    for line in (PROCESSES / str(pid) / "maps").read_text(errors="replace").splitlines():
        begin, end = (int(part, 16) for part in line.split(maxsplit=1)[0].split("-"))
        if begin <= address < end:
            return begin
    raise ValueError("its stack is not known")


def _positions(content: bytes, wanted: bytes) -> list[int]:
    found, position = [], content.find(wanted)
    while position >= 0:
        found.append(position)
        position = content.find(wanted, position + 1)
    return found
