"""A ModelPortfolio file of a stranger: small, and without end once it is written out, or nested, or of odd bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limited_process import run_limited

from edgefolio.errors import UserError
from edgefolio.specification.loading import parse_portfolio
from edgefolio.untrusted.yaml_document import DEEPEST, LARGEST_BYTES, MOST_VALUES, load_yaml

MEMORY = 256 << 20
HEAD = "apiVersion: edgefolio.dev/v1alpha1\nkind: ModelPortfolio\nmetadata: {name: x}\n"
SPEC = "spec: {repository: {uri: ./r}, serving: {modelName: m}}\n"


def lists(levels: int = 10) -> str:
    """Lines that define ``b0`` to ``b9``: ten to the power of ``levels`` values behind the last alias."""
    lines = ["b0: &b0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"b{n}: &b{n} [{','.join([f'*b{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


def mappings(key: str) -> str:
    lines = ["m0: &m0 {a: x}"]
    lines += [f"m{n}: &m{n} {{{key % ','.join([f'*m{n - 1}'] * 10)}}}" for n in range(1, 10)]
    return "\n".join(lines) + "\n"


FILES: dict[str, bytes] = {
    "aliases in kind": f"{lists()}{HEAD.replace('ModelPortfolio', '*b9')}".encode(),
    "aliases in apiVersion": f"{lists()}kind: ModelPortfolio\napiVersion: *b9\n".encode(),
    "aliases in spec": f"{lists()}{HEAD}spec: *b9\n".encode(),
    "aliases in status": f"{lists()}{HEAD}{SPEC}status: {{a: *b9}}\n".encode(),
    "aliases in a text": f"{lists()}{HEAD}{SPEC.replace('./r', '*b9')}".encode(),
    "aliases as a key": f"{lists()}{HEAD}? *b9\n: 1\n".encode(),
    "merged mappings": f"{mappings('<<: [%s]')}{HEAD}spec: *m9\n".encode(),
    "mappings of mappings": f"{mappings('a: [%s]')}{HEAD}spec: *m9\n".encode(),
    "an alias in itself": f"{HEAD}spec: &a [*a]\n".encode(),
    "a mapping in itself": f"{HEAD}spec: &a {{<<: *a}}\n".encode(),
    "depth by aliases": (
        "".join(f"d{n}: &d{n} [{f'*d{n - 1}' if n else ''}]\n" for n in range(5000)) + HEAD + "spec: *d4999\n"
    ).encode(),
    "brackets": b"kind: " + b"[" * 500_000,
    "braces": b"kind: " + b"{a: " * 200_000,
    "dashes": b"- " * 300_000,
    "question marks": b"? " * 300_000,
    "many values": b"kind: [" + b"a," * 500_000 + b"]",
    "many anchors": b"kind: [" + b"".join(b"&a%d x," % n for n in range(50_000)) + b"]",
    "a long text": HEAD.encode() + b"spec: " + b"x" * 900_000,
    "a long key": HEAD.encode() + b"x" * 900_000 + b": 1\n",
    "a long tag": b"kind: !" + b"x" * 900_000,
    "a long alias": b"kind: *" + b"x" * 900_000,
    "5000 digits": f"{HEAD}spec: {{seed: {'9' * 5000}}}\n".encode(),
    "digits and underscores": f"{HEAD}spec: {{seed: {'1_' * 5000}1}}\n".encode(),
    "hexadecimal digits": f"{HEAD}spec: {{seed: 0x{'f' * 5000}}}\n".encode(),
    "sixties": f"{HEAD}spec: {{seed: 1{':59' * 50_000}}}\n".encode(),
    "a long fraction": f"{HEAD}spec: {{seed: 0.{'1' * 100_000}}}\n".encode(),
    "infinity": f"{HEAD}spec: {{repository: {{uri: r}}, serving: {{modelName: m}}, seed: .inf}}\n".encode(),
    "not a number": f"{HEAD}spec: {{repository: {{uri: r}}, serving: {{modelName: m}}, seed: .nan}}\n".encode(),
    "binary": f"{HEAD}spec: {{repository: {{uri: !!binary aGFsbG8=}}, serving: {{modelName: m}}}}\n".encode(),
    "a set": f"{HEAD}spec: !!set {{a, b}}\n".encode(),
    "pairs": f"{HEAD}spec: !!pairs [a: b]\n".encode(),
    "a Python object": f"{HEAD}spec: !!python/object/apply:os.system [true]\n".encode(),
    "a number as key": f"{HEAD}{SPEC}1: 2\n".encode(),
    "a truth value as key": f"{HEAD}{SPEC}yes: 2\n".encode(),
    "nothing as key": f"{HEAD}{SPEC}~: 2\n".encode(),
    "a key twice": f"{HEAD}{SPEC}{SPEC}".encode(),
    "a key twice behind an alias": f"a: &a {{b: 1, b: 2}}\n{HEAD}spec: *a\n".encode(),
    "two documents": f"{HEAD}{SPEC}---\n{HEAD}{SPEC}".encode(),
    "tabs": f"{HEAD}spec:\n\tseed: 1\n".encode(),
    "NUL": f"{HEAD}spec: \x00\n".encode(),
    "escape": f"{HEAD}spec: \x1b[2J\n".encode(),
    "half a character": f'{HEAD}spec: {{repository: {{uri: "\\ud800"}}, serving: {{modelName: m}}}}\n'.encode(),
    "UTF-16": f"{HEAD}{SPEC}".encode("utf-16"),
    "UTF-32": f"{HEAD}{SPEC}".encode("utf-32"),
    "Latin-1": f"{HEAD}# é\n{SPEC}".encode("latin-1"),
    "too large": f"{HEAD}{SPEC}#".encode() + b"x" * LARGEST_BYTES,
}


# The command line for each file in turn, in one process; what it wrote and its exit code as one JSON object a file.
COMMANDS = """
import contextlib, io, json, sys
from edgefolio.commands.main import main
#limit
for path in sys.argv[1:]:
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(["explain", "-f", path])
        except SystemExit as end:
            code = end.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


def test_each_file_is_refused_in_bounded_memory_with_a_bounded_message(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.yaml" for number in range(len(FILES) + 1)]
    for path, content in zip(paths, FILES.values(), strict=False):
        path.write_bytes(content)
    paths[-1].symlink_to("/dev/zero")
    finished = run_limited(COMMANDS, *paths, memory=MEMORY, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr[-2000:]
    answers = [json.loads(line) for line in finished.stdout.splitlines()]
    assert len(answers) == len(paths)
    for case, (code, out, error) in zip([*FILES, "an endless file"], answers, strict=True):
        assert (code, out) == (2, ""), (case, error)
        lines = error.splitlines()
        assert [line[:7] for line in lines] == ["error: ", "  field", "  remed"], (case, error)
        assert len(error) < 3000, case
        assert all(line.isprintable() for line in lines), case
    assert f"larger than {LARGEST_BYTES} bytes" in answers[-1][2]


def test_a_mark_of_the_byte_order_is_no_fault() -> None:
    assert parse_portfolio("\ufeff" + HEAD + SPEC).metadata.name == "x"


def test_the_bounds_are_exact() -> None:
    nested = "[" * (DEEPEST - 1) + "1" + "]" * (DEEPEST - 1)
    assert load_yaml(nested) is not None
    with pytest.raises(ValueError, match="nested too deeply"):
        load_yaml(f"[{nested}]")
    half = f"a: &a [{','.join(['1'] * (MOST_VALUES // 2 - 2))}]\n"
    assert len(load_yaml(half + "b: *a\n")["b"]) == MOST_VALUES // 2 - 2
    with pytest.raises(ValueError, match="with its aliases it holds more than"):
        load_yaml(half + "b: *a\nc: *a\n")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**60), 10**60) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_json_is_what_it_was(value: object) -> None:
    # A Job reads what the operator wrote as JSON.
    assert load_yaml(json.dumps(value)) == value
    assert load_yaml(json.dumps(value, indent=2, sort_keys=True)) == value


PIECES = st.sampled_from(
    [
        "&a ",
        "*a",
        "&b ",
        "*b",
        "[",
        "]",
        "{",
        "}",
        ", ",
        ": ",
        "<<: ",
        "- ",
        "\n",
        "  ",
        "a",
        "1",
        '"',
        "!!int ",
        "? ",
        "|",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=40).map("".join))
def test_aliases_in_any_place_are_read_or_refused(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_portfolio(text)
    assert str(caught.value).isprintable()
