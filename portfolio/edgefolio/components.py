"""Known vulnerabilities of the software that Edgefolio runs, with the versions that fix them.

From the bulletins of NVIDIA (github.com/NVIDIA/product-security) and the advisories of ONNX, read in November 2026;
those of parts that Edgefolio never uses (DALI, MLflow, TensorRT) are left out. The agent compares the Triton that it
controls with this table, the operator the images of the pods.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Version = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Advisory:
    """One bulletin: its ``vulnerabilities`` are mended in ``mended`` and in all later versions."""

    mended: str
    vulnerabilities: tuple[str, ...]
    effect: str


@dataclass(frozen=True, kw_only=True)
class Component:
    """One piece of software, with what is known about its versions, the oldest first."""

    name: str
    shipped: str
    advisories: tuple[Advisory, ...]

    def unmended(self, version: str) -> tuple[Advisory, ...]:
        """The advisories that hold for ``version``, the oldest first; none for a version that cannot be read."""
        numbers = version_numbers(version)
        if not numbers:
            return ()
        return tuple(each for each in self.advisories if numbers < version_numbers(each.mended))


#: Default image of Triton, unless an installation or a portfolio names another one.
TRITON_IMAGE = "nvcr.io/nvidia/tritonserver:26.10-py3"
#: The Triton inside the wheel, which has had no release since August 2025.
WHEEL_TRITON = "2.51.0"

#: Versions are NVIDIA's releases, by which its bulletins count.
TRITON = Component(
    name="Triton Inference Server",
    shipped=f"`{TRITON_IMAGE}`; the wheel for one machine, and the image of `images/triton.Dockerfile`: 24.10",
    advisories=(
        Advisory(
            mended="25.05",
            vulnerabilities=(
                "CVE-2025-23323",
                "CVE-2025-23324",
                "CVE-2025-23325",
                "CVE-2025-23326",
                "CVE-2025-23327",
            ),
            effect="a client ends the server with an invalid request",
        ),
        Advisory(
            mended="25.06",
            vulnerabilities=("CVE-2025-23322", "CVE-2025-23331"),
            effect="a client ends the server with cancelled streams or large sizes",
        ),
        Advisory(
            mended="25.07",
            vulnerabilities=(
                "CVE-2025-23310",
                "CVE-2025-23311",
                "CVE-2025-23317",
                "CVE-2025-23318",
                "CVE-2025-23319",
                "CVE-2025-23320",
                "CVE-2025-23321",
                "CVE-2025-23333",
                "CVE-2025-23334",
            ),
            effect="a client ends the server over HTTP, or runs code through HTTP or the Python backend",
        ),
        Advisory(
            mended="25.08",
            vulnerabilities=("CVE-2025-23316",),
            effect="code through the model control interface, which a key closes here",
        ),
        Advisory(
            mended="26.02",
            vulnerabilities=(
                "CVE-2026-24146",
                "CVE-2026-24147",
                "CVE-2026-24173",
                "CVE-2026-24174",
                "CVE-2026-24175",
            ),
            effect="a client ends the server with many outputs, a malformed request or header",
        ),
        Advisory(
            mended="26.03",
            vulnerabilities=(
                "CVE-2026-24206",
                "CVE-2026-24207",
                "CVE-2026-24208",
                "CVE-2026-24209",
                "CVE-2026-24210",
            ),
            effect="the key of the control interfaces is bypassed; a client ends the server",
        ),
        Advisory(
            mended="26.04",
            vulnerabilities=("CVE-2026-24264", "CVE-2026-24266", "CVE-2026-47625"),
            effect="a client ends the server with compressed data, or where authorization is missing",
        ),
        Advisory(
            mended="26.05",
            vulnerabilities=(
                "CVE-2026-47476",
                "CVE-2026-47477",
                "CVE-2026-47478",
                "CVE-2026-47479",
                "CVE-2026-47480",
                "CVE-2026-47481",
                "CVE-2026-47482",
            ),
            effect="the key of the control interfaces is bypassed; a client ends the server or takes its memory",
        ),
        Advisory(
            mended="26.06",
            vulnerabilities=(
                "CVE-2026-47606",
                "CVE-2026-47627",
                "CVE-2026-47628",
                "CVE-2026-47629",
                "CVE-2026-47630",
            ),
            effect="files outside the repository are reached; a client ends the server or takes its memory",
        ),
        Advisory(
            mended="26.07",
            vulnerabilities=("CVE-2026-16497",),
            effect="a client keeps the server busy without end",
        ),
    ),
)
ONNX_RUNTIME = Component(
    name="ONNX Runtime",
    shipped="`constraints.txt` (1.32.0); NVIDIA's image brings its own",
    advisories=(
        Advisory(
            mended="1.24.0",
            vulnerabilities=(),
            effect="a model reads files outside its folder as weights (tried: read by 1.19.2 to 1.23.2, refused by "
            "1.24.4). The agent refuses such models before any runtime opens them",
        ),
        Advisory(
            mended="1.27.0",
            vulnerabilities=(),
            effect="the same through sparse tensors (tried: read by 1.24.4 and 1.26.0, refused by 1.27.0); the agent "
            "refuses all sparse tensors",
        ),
    ),
)
ONNX = Component(
    name="onnx",
    shipped="`constraints.txt` (1.23.2); only the pruning run and `edgefolio verify` use it",
    advisories=(
        Advisory(
            mended="1.21.0",
            vulnerabilities=("CVE-2026-27489", "CVE-2026-34447"),
            effect="a model reads files outside its folder through links",
        ),
    ),
)
COMPONENTS = (TRITON, ONNX_RUNTIME, ONNX)

# 24.10 is 2.51, and one release a month counts on; 25.07 was 2.59.1, the only one that did not.
_FIRST_RELEASE, _FIRST_MINOR = (24, 10), 51
_PATCHED_RELEASE, _PATCHED_MINOR = (25, 7), 59
_IMAGE = re.compile(r"tritonserver:(?P<release>[0-9]{2}\.[0-9]{2})(?:[^0-9]|$)")


def version_numbers(text: str) -> Version:
    """The numbers of a version, to compare: ``(2, 51, 0)``; empty for anything else."""
    match = re.match(r"[0-9]{1,6}(?:\.[0-9]{1,6}){1,3}", text)
    return () if match is None else tuple(int(part) for part in match[0].split("."))


def triton_release(version: str) -> str:
    """NVIDIA's release of a Triton by the version that it reports: ``2.51.0`` is ``24.10``; empty if unknown."""
    numbers = version_numbers(version)
    if len(numbers) < 2 or numbers[0] != 2:
        return ""
    months = numbers[1] - _FIRST_MINOR
    if numbers[1] > _PATCHED_MINOR or numbers[1:3] == (_PATCHED_MINOR, 1):
        months += 1
    month = 12 * _FIRST_RELEASE[0] + _FIRST_RELEASE[1] - 1 + months
    return f"{month // 12:02}.{month % 12 + 1:02}"


def release_of_image(image: str) -> str:
    """NVIDIA's release of one of its images of Triton: ``.../tritonserver:24.10-py3`` is ``24.10``; else empty."""
    match = _IMAGE.search(image)
    return "" if match is None else match["release"]


def triton_warning(release: str) -> str | None:
    """What is known to be wrong with a ``release`` of Triton, and the remedy; ``None`` where nothing is known."""
    found = TRITON.unmended(release)
    if not found:
        return None
    names = [name for each in reversed(found) for name in each.vulnerabilities]
    return (
        f"Triton {release} lacks the fixes of {len(names)} known vulnerabilities. Run {found[-1].mended} or later "
        f"({release_of_image(TRITON_IMAGE)} is the default). They are {', '.join(names)}."
    )


def triton_notice(release: str) -> str | None:
    """The same in one short line, for a terminal."""
    found = TRITON.unmended(release)
    if not found:
        return None
    count = sum(len(each.vulnerabilities) for each in found)
    return (
        f"Triton {release} has {count} known vulnerabilities (docs/reference/components.md). Let only clients that you "
        f"trust reach it, or attach to {found[-1].mended} or later with --endpoint."
    )
