"""ONNX Runtime with the kernels of other processors than this one.

ONNX Runtime has no setting for it: it asks the processor with CPUID. In a copy of it every CPUID instruction is
replaced by UD2, which raises SIGILL; the handler executes CPUID and hides what the wanted processor lacks. ``objdump``
and a C compiler are needed, and x86-64.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import onnxruntime

#: By what each lacks; the number is the handler's.
KERNELS = {"as it is": 0, "AVX-512, no VNNI": 1, "AVX2": 2, "SSE4": 3}
_CPUID, _UD2 = b"\x0f\xa2", b"\x0f\x0b"
_HANDLER = r"""
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
static int lacks;
static void answer(int number, siginfo_t *info, void *context) {
  greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
  unsigned leaf = r[REG_RAX], sub = r[REG_RCX], a, b, c, d;
  if (memcmp((void *)r[REG_RIP], "\x0f\x0b", 2)) abort();
  __cpuid_count(leaf, sub, a, b, c, d);
  if (lacks >= 1 && leaf == 7 && sub == 0) { c &= ~(1u << 11); d &= ~(1u << 22 | 1u << 24 | 1u << 25); }
  if (lacks >= 1 && leaf == 7 && sub == 1) { a &= ~(1u << 4); d &= ~(1u << 4 | 1u << 10); }
  if (lacks >= 2 && leaf == 7 && sub == 0) {
    b &= ~(1u << 16 | 1u << 17 | 1u << 21 | 1u << 28 | 1u << 30 | 1u << 31);
    c &= ~(1u << 1 | 1u << 6 | 1u << 12 | 1u << 14);
    d &= ~(1u << 23);
  }
  if (lacks >= 2 && leaf == 7 && sub == 1) a &= ~(1u << 5);
  if (lacks >= 3 && leaf == 7 && sub == 0) b &= ~(1u << 5);
  if (lacks >= 3 && leaf == 1) c &= ~(1u << 12 | 1u << 28 | 1u << 29);
  r[REG_RAX] = a; r[REG_RBX] = b; r[REG_RCX] = c; r[REG_RDX] = d; r[REG_RIP] += 2;
}
void hide(int what) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = answer;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  lacks = what;
  sigaction(SIGILL, &action, 0);
}
"""


def prepare(folder: Path) -> None:
    """Put the changed copy of ONNX Runtime and the handler into ``folder``, once."""
    handler = folder / "handler.so"
    if handler.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "onnxruntime", ignore_errors=True)
    shutil.copytree(Path(onnxruntime.__file__).parent, folder / "onnxruntime")
    (library,) = (folder / "onnxruntime" / "capi").glob("onnxruntime_pybind11_state*.so")
    content = bytearray(library.read_bytes())
    offsets = _file_offsets(library)
    for offset in offsets:
        assert content[offset : offset + 2] == _CPUID
        content[offset : offset + 2] = _UD2
    library.chmod(0o644)
    library.write_bytes(content)
    source = folder / "handler.c"
    source.write_text(_HANDLER)
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(handler), str(source)], check=True)


def _file_offsets(library: Path) -> list[int]:
    """Where the instructions lie in the file. Two such bytes within another instruction are none."""
    headers = subprocess.run(["objdump", "-h", library], check=True, capture_output=True, text=True).stdout
    text = re.search(r"\.text\s+([0-9a-f]+)\s+([0-9a-f]+)\s+[0-9a-f]+\s+([0-9a-f]+)", headers)
    assert text is not None
    _, address, position = (int(number, 16) for number in text.groups())
    offsets = []
    command = ["objdump", "-d", "-j", ".text", "--no-show-raw-insn", library]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.rstrip().endswith("cpuid"):
                offsets.append(int(line.partition(":")[0], 16) - address + position)
    return offsets
