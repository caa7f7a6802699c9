"""One identity of a processor, whoever asks for it."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from edgefolio.processor import Processor, this_processor

SAMPLES = Path(__file__).parent / "cpuinfo"
#: File in ``cpuinfo`` -> model, some flags that the processor has, and some that only look as if.
KNOWN = {
    "intel-xeon-e5-2670-v2": ("Intel(R) Xeon(R) CPU E5-2670 v2 @ 2.50GHz", {"avx", "f16c"}, {"avx2", "fma"}),
    "intel-xeon-e5-2680": ("Intel(R) Xeon(R) CPU E5-2680 0 @ 2.70GHz", {"sse4_2", "avx"}, {"f16c", "avx2"}),
    "intel-xeon-platinum-8481c": (
        "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
        # The last of the line, where a search for " amx_bf16 " finds nothing.
        {"avx512_vnni", "amx_tile", "amx_bf16"},
        {"sve"},
    ),
    "amd-epyc-7763": ("AMD EPYC 7763 64-Core Processor", {"avx2", "fma"}, {"avx512f", "amx_bf16"}),
    "amd-fx-8350": ("AMD FX(tm)-8350 Eight-Core Processor", {"avx", "fma", "fma4"}, {"avx2"}),
    "qemu-x86": ("QEMU Virtual CPU version 2.5+", {"sse2"}, {"sse4_2", "avx"}),
    "raspberry-pi-4": ("implementer 0x41 part 0xd08", {"asimd"}, {"asimddp", "asimdhp"}),
    "raspberry-pi-4-of-32-bits": ("implementer 0x41 part 0xd08", {"neon"}, {"asimd"}),
    "raspberry-pi-5": ("implementer 0x41 part 0xd0b", {"asimdhp", "asimddp"}, {"sve", "bf16"}),
    "jetson-orin": ("implementer 0x41 part 0xd42", {"asimdhp", "asimddp"}, {"sve", "i8mm"}),
    "graviton-2": ("implementer 0x41 part 0xd0c", {"asimdhp", "asimddp"}, {"sve", "bf16"}),
    "graviton-3": ("implementer 0x41 part 0xd40", {"sve", "i8mm", "bf16"}, {"sve2"}),
    "rockchip-rk3588": ("implementer 0x41 part 0xd05, implementer 0x41 part 0xd0b", {"asimddp"}, {"sve"}),
    "qemu-arm": ("implementer 0x41 part 0xd07", {"asimd"}, {"asimddp"}),
}


def test_every_sample_is_known() -> None:
    assert {path.stem for path in SAMPLES.iterdir()} == KNOWN.keys()


@pytest.mark.parametrize("name", KNOWN)
def test_identity_and_flags(name: str) -> None:
    model, has, has_not = KNOWN[name]
    processor = Processor.of((SAMPLES / f"{name}.txt").read_text(encoding="utf-8"))
    assert processor.model == model
    assert has <= processor.flags
    assert not has_not & processor.flags


def test_the_same_cores_have_the_same_identity_on_every_board() -> None:
    text = (SAMPLES / "raspberry-pi-4.txt").read_text(encoding="utf-8")
    assert "Rev 1.2" in text
    other = text.replace("Rev 1.2", "Rev 1.5").replace("BCM2835", "BCM2711").replace("processor\t: 3", "processor\t: 7")
    assert Processor.of(other) == Processor.of(text)


def test_flags_are_those_of_all_cores() -> None:
    first, second = (
        f"processor: {n}\nmodel name: mixed\nflags: sse2 {flag}\n" for n, flag in enumerate(("avx", "mmx"))
    )
    assert Processor.of(f"{first}\n{second}") == Processor(model="mixed", flags=frozenset({"sse2"}))


@pytest.mark.parametrize(
    "text", ["", "\n\n", "nonsense", "processor: 0\nmodel name:\n", "processor\t: 0\nCPU part: 0xd08\n"]
)
def test_without_a_name_the_architecture_is_told(text: str) -> None:
    assert Processor.of(text).model == (platform.processor() or platform.machine())


def test_this_machine_has_one() -> None:
    assert this_processor().model
    assert this_processor() == this_processor()
