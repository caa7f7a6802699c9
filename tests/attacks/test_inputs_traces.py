"""A decision trace of a stranger: without end, nested, of odd numbers and bytes."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limited_process import run_limited

from edgefolio.commands.replay import _document
from edgefolio.decision.recording.replay import replay
from edgefolio.decision.recording.traces import parse_trace
from edgefolio.errors import UserError

TRACES = Path(__file__).parents[1] / "decision" / "traces"
STEP = (TRACES / "step.jsonl").read_text().splitlines()
HEADER = STEP[0].encode()

FILES: dict[str, bytes] = {
    "empty": b"",
    "a line of 100 MB": b"[" + b" " * 100_000_000,
    "nested lists": b"[" * 500_000,
    "nested objects": b'{"a":' * 100_000,
    "nested settings": b'{"trace":"edgefolio.dev/decision-trace/v1","profiles":[' + b"[" * 900 + b"]" * 900 + b"]}",
    "nested observation": HEADER + b'\n{"now":1,"observation":' + b'{"traffic":' * 400 + b"1" + b"}" * 401,
    "5000 digits": HEADER + b'\n{"now":' + b"9" * 5000 + b"}",
    "400 digits": HEADER + b'\n{"now":' + b"9" * 400 + b',"switched":"a"}',
    "an exponent": HEADER + b'\n{"now":"1e99999999999"}',
    "half a character": b'{"trace":"\\ud800"}',
    "NUL": b"\x00" * 1000,
    "UTF-16": "\n".join(STEP).encode("utf-16"),
    "a mark of the byte order": b"\xef\xbb\xbf" + HEADER,
    "escapes": b"\x1b[2J\n",
    "a list": b"[]",
    "not a number": b"NaN",
}
COMMANDS = """
import contextlib, io, json, sys
from edgefolio.commands.main import main
#limit
for path in sys.argv[1:]:
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(["replay", path, "--json"])
        except SystemExit as end:
            code = end.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


def test_each_trace_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.jsonl" for number in range(len(FILES) + 1)]
    for path, content in zip(paths, FILES.values(), strict=False):
        path.write_bytes(content)
    paths[-1].symlink_to("/dev/zero")
    finished = run_limited(COMMANDS, *paths, memory=256 << 20, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr[-2000:]
    answers = [json.loads(line) for line in finished.stdout.splitlines()]
    for case, (code, out, error) in zip([*FILES, "an endless file"], answers, strict=True):
        assert (code, out) == (2, ""), (case, error)
        assert error.count("\n") == 3, (case, error)
        assert all(line.isprintable() for line in error.splitlines()), case
        assert len(error) < 3000, case


def places(document: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in inner:
        yield (*place, key)
        yield from places(value, (*place, key))


LINES = [json.loads(line) for line in STEP]
PLACES = [(number, place) for number, line in enumerate(LINES) for place in places(line)]
NUMBERS = st.sampled_from([0, -1, 1e-300, 1e300, -1e300, 1e18, 2**53, 10**30, "Infinity", "-Infinity", "NaN"])
VALUES = NUMBERS | st.sampled_from([None, True, "", [], {}, "x", "\x1b[2J", "\ud800"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3))
def test_any_value_in_any_place_is_replayed_or_refused(changes: list[tuple[tuple[int, tuple[Any, ...]], Any]]) -> None:
    lines = copy.deepcopy(LINES[:120])
    for (number, place), value in changes:
        target = lines[min(number, len(lines) - 1)]
        for key in place[:-1]:
            target = target.get(key, {}) if isinstance(target, dict) else {}
        if isinstance(target, dict):
            target[place[-1]] = value
    try:
        trace = parse_trace(json.dumps(line) for line in lines)
    except UserError as error:
        text = str(error)
    else:
        result = replay(trace)
        text = json.dumps(_document(trace, result, result.differences()))
    assert text.isprintable()
