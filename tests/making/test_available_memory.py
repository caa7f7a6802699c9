"""Memory that a pruning run may still take, by the tightest bound there is."""

from __future__ import annotations

import gc
import io
import resource
from pathlib import Path

import psutil
import pytest

from edgefolio.errors import TransientError, UserError
from edgefolio_pruner import available_memory as module
from edgefolio_pruner.available_memory import (
    Memory,
    available_memory,
    memory_to_plan_with,
    read_bounded,
    require_memory,
)

MIB = 1 << 20


def group(folder: Path, *, limit: str, usage: int, cache: int, version: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for name, value in zip(names, (limit, usage), strict=True):
        (folder / name).write_text(f"{value}\n")
    field = "inactive_file" if version == 2 else "total_inactive_file"
    (folder / "memory.stat").write_text(f"anon 5\n{field} {cache}\n")


def of_process(folder: Path, text: str) -> Path:
    (folder / "self").mkdir(parents=True)
    (folder / "self" / "cgroup").write_text(text)
    return folder


def test_the_tightest_cgroup_binds_in_both_versions(tmp_path: Path) -> None:
    own = psutil.Process().memory_info().rss
    total = own + 100 * MIB
    second = tmp_path / "v2"
    group(second / "pod" / "container", limit="max", usage=1, cache=0)
    group(second / "pod", limit=str(total), usage=90 * MIB, cache=30 * MIB)
    found = available_memory(cgroups=second, processes=of_process(tmp_path / "p2", "0::/pod/container\n"))
    assert found.free == pytest.approx(total - 60 * MIB, abs=5 * MIB)
    assert found.most == pytest.approx(100 * MIB, abs=5 * MIB)
    first = tmp_path / "v1"
    group(first / "memory", limit=str(total), usage=90 * MIB, cache=0, version=1)
    # In a container the path is the host's.
    listed = "4:memory:/kubepods/x\n3:cpu:/\n0::/\n"
    found = available_memory(cgroups=first, processes=of_process(tmp_path / "p1", listed))
    assert found.free == pytest.approx(total - 90 * MIB, abs=5 * MIB)


def test_without_a_limit_the_machine_binds(tmp_path: Path) -> None:
    found = available_memory(cgroups=tmp_path, processes=tmp_path)
    assert 0 < found.free <= found.most <= psutil.virtual_memory().total
    limit, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 50 * MIB, hard))
    try:
        assert available_memory(cgroups=tmp_path, processes=tmp_path).most <= 50 * MIB
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def test_what_others_use_now_is_tried_again_and_what_never_fits_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_memory", lambda: Memory(free=100 * MIB, most=1000 * MIB))
    require_memory(100 * MIB, what="the data", field="f", value="v")
    with pytest.raises(TransientError, match=r"at least 500\.0 MiB of memory, and 100\.0 MiB are free"):
        require_memory(500 * MIB, what="the data", field="f", value="v")
    with pytest.raises(UserError) as caught:
        require_memory(5000 * MIB, what="the data", field="f", value="v")
    assert not isinstance(caught.value, TransientError)


def test_a_stream_is_read_to_its_end_however_it_answers(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000

    class Drops(io.BytesIO):
        """Answers in pieces, and says a size that is not so."""

        size = 7

        def read(self, _count: int | None = -1) -> bytes:
            return super().read(999)

    assert read_bounded(Drops(content), field="f", value="v") == content
    path = tmp_path / "file"
    path.write_bytes(content)
    with path.open("rb") as file:
        assert read_bounded(file, field="f", value="v") == content
    with path.open("r+b") as file:
        file.truncate(1 << 40)
        with pytest.raises(UserError, match="the file takes at least"):
            read_bounded(file, field="f", value="v")


def test_what_was_freed_is_given_back_before_it_is_planned_with() -> None:
    def resident() -> int:
        return int(psutil.Process().memory_info().rss)

    # Small pieces lie in the C library's heap, which a piece that is held at its end keeps from shrinking.
    pieces = [bytes([number % 251]) * 100_000 for number in range(3_000)]
    last, full = pieces[-1], resident()
    del pieces
    gc.collect()
    memory_to_plan_with()
    assert last
    assert resident() < full - 200e6
