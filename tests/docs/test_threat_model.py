"""The threat model names the test of each line, and every test of an attack has a line."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def test_each_line_has_a_test_that_exists() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "**" in line]
    assert len(rows) > 10
    for row in rows:
        tests = re.findall(r"`(tests/[\w/]+\.py)`", row)
        assert tests, row
        assert [path for path in tests if not (ROOT / path).is_file()] == []


def test_each_attack_has_a_line() -> None:
    attacks = [*(ROOT / "tests" / "attacks").glob("test_*.py"), *(ROOT / "tests").glob("*/test_attack_*.py")]
    assert attacks
    assert [name for path in attacks if (name := str(path.relative_to(ROOT))) not in PAGE] == []
