"""The decision core loads nothing that reads a clock, a file or a network, not even by way of a package's __init__."""

from __future__ import annotations

import subprocess
import sys

#: Of the project's own modules these do input or output; pydantic itself loads half of the standard library.
IMPURE = ("yaml", "fsspec", "edgefolio.files", "edgefolio.repository", "edgefolio.specification.loading")


def test_importing_the_decision_loads_no_module_that_does_input_or_output() -> None:
    script = f"import sys, edgefolio.decision; print([name for name in {IMPURE!r} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
