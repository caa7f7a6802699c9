#!/usr/bin/env python3
"""List what each image holds (CycloneDX), and ask for known vulnerabilities of the pinned packages: ``make audit``.

Written to ``build/audit``: for each image its Python packages with their versions, ``NAME.txt``, and as a software bill
of materials, ``NAME.cdx.json``; the packages of ``.venv`` with licences, ``environment.cdx.json``; ``advisories.json``.

The advisories are PyPI's; where it cannot be asked, OSV's; and in any case those that are known to this repository
(docs/reference/components.md), which need no network. What was not done is said at the end, with its reason.

Exit code: 0 nothing is known, 1 something is, 3 neither PyPI nor OSV could be asked.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edgefolio.components import COMPONENTS

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "build" / "audit"
TOOLS = ROOT / ".venv-audit" / "bin"
NOT_ASKED = 3
LONGEST_SECONDS = 240
#: The wheel that Triton's image takes the server out of.
SERVER = "nvidia-pytriton"


def _install() -> ModuleType:
    """What the Dockerfiles run: it says of which extras an image is made."""
    specification = importlib.util.spec_from_file_location("install", ROOT / "images" / "install.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def images() -> dict[str, list[str]]:
    """What pip is asked to install into each image; the pruner's is the one that holds torch."""
    install = _install()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {
        name.removesuffix("-included"): [each for extra in extras for each in install.requirements_of(project, extra)]
        for name, extras in install.EXTRAS.items()
        if name != "pruner-mounted"
    }


def pinned() -> dict[str, str]:
    """The versions of constraints.txt, by canonical name."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        name, separator, version = line.partition("==")
        if separator and not name.startswith("#"):
            found[canonicalize_name(name.strip())] = version.split(";")[0].strip()
    return found


def closure(requirements: list[str]) -> dict[str, str]:
    """Package -> version of ``requirements`` and all that they need, as pinned."""
    versions = pinned()
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    wanted = [Requirement(text) for text in requirements]
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            raise SystemExit(f"audit: {name} is not installed in this environment; run: make install") from None
        # As installed where nothing pins it: setuptools comes with torch, in whichever version Python brought.
        found[name] = versions.get(name, distribution.version)
        for extra in sorted({"", *requirement.extras}):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            inner = [Requirement(text) for text in distribution.requires or ()]
            wanted += [each for each in inner if each.marker is None or each.marker.evaluate({"extra": extra})]
    return dict(sorted(found.items()))


def write_bills() -> None:
    """What each image holds, and this environment."""
    for image, requirements in images().items():
        listed = OUTPUT / f"{image}.txt"
        packages = closure(requirements)
        if image == "triton":
            # Its server, without what the wheel's own binding would need.
            packages |= {SERVER: pinned()[SERVER]}
        listed.write_text("".join(f"{name}=={version}\n" for name, version in packages.items()))
        _tool("cyclonedx-py", "requirements", str(listed), "--output-file", str(OUTPUT / f"{image}.cdx.json"))
        print(f"{OUTPUT.relative_to(ROOT)}/{image}.cdx.json: {len(listed.read_text().splitlines())} packages")
    bill = OUTPUT / "environment.cdx.json"
    _tool("cyclonedx-py", "environment", str(ROOT / ".venv"), "--output-file", str(bill))
    print(f"{bill.relative_to(ROOT)}: {len(json.loads(bill.read_text()).get('components', ()))} packages")


def ask() -> int:
    """Ask PyPI, or else OSV, for advisories about constraints.txt; the exit code."""
    answer = None
    for service in ("pypi", "osv"):
        answer = _answer_of(service)
        if answer is not None:
            break
    if answer is None:
        return NOT_ASKED
    skipped = [entry for entry in answer if "skip_reason" in entry]
    hit = [entry for entry in answer if entry.get("vulns")]
    for entry in hit:
        for each in entry["vulns"]:
            mended = ", ".join(each.get("fix_versions") or ()) or "none yet"
            print(f"{entry['name']} {entry['version']}: {each['id']}, mended in: {mended}")
    print(f"advisories: {len(answer) - len(skipped)} packages asked for, {len(hit)} with known vulnerabilities")
    for entry in skipped:
        print(f"not asked for: {entry['name']}: {entry['skip_reason']}", file=sys.stderr)
    return 1 if hit else 0


def _answer_of(service: str) -> list[dict[str, Any]] | None:
    """What ``service`` says of each package; ``None``, with the reason printed, if it cannot be asked."""
    output = OUTPUT / "advisories.json"
    output.unlink(missing_ok=True)
    command = [
        *(str(TOOLS / "pip-audit"), "--requirement", str(ROOT / "constraints.txt"), "--no-deps", "--disable-pip"),
        *("--format", "json", "--output", str(output), "--progress-spinner", "off", "--timeout", "10"),
        *("--vulnerability-service", service),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS)
    except subprocess.TimeoutExpired:
        # It tries a name that is not resolved again and again.
        return _not_asked(service, f"no answer within {LONGEST_SECONDS} s")
    entries: list[dict[str, Any]] = json.loads(output.read_text())["dependencies"] if output.exists() else []
    reason = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
    if entries and all("skip_reason" in entry for entry in entries):
        # As from an index that has files and no advisories.
        reason = f"it knows none of {len(entries)} packages; {entries[0]['skip_reason']}"
        output.unlink()
        entries = []
    return entries or _not_asked(service, reason)


def _not_asked(service: str, reason: str) -> None:
    print(f"advisories of {service}: NOT ASKED, so nothing is known from there: {reason}", file=sys.stderr)


def compare_components() -> int:
    """Compare what is pinned with the advisories that this repository knows; the number of those that hold."""
    found, compared = 0, []
    for component in COMPONENTS:
        version = pinned().get(canonicalize_name(component.name.replace("ONNX Runtime", "onnxruntime")))
        if version is None:
            continue  # Triton's is an image
        compared.append(f"{component.name} {version}")
        for advisory in component.unmended(version):
            found += 1
            names = ", ".join(advisory.vulnerabilities) or "no number"
            print(f"{component.name} {version}: {names}, mended in: {advisory.mended}")
    print(f"components: {', '.join(compared)}; {found} of the advisories in docs/reference/components.md hold for them")
    return found


def _tool(*command: str) -> None:
    done = subprocess.run([str(TOOLS / command[0]), *command[1:]], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"audit: {command[0]} failed: {(done.stderr or done.stdout).strip()[-2000:]}")


def main() -> int:
    """Write the bills, compare and ask; the exit code."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    write_bills()
    holds = compare_components()
    code = ask()
    print(
        "images: NOT SCANNED; a scanner reads build/audit/*.cdx.json, and images for what is not Python",
        file=sys.stderr,
    )
    return 1 if holds else code


if __name__ == "__main__":
    sys.exit(main())
