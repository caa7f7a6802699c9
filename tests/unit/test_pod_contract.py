"""A name that operator and pods share is written once: in the contract."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefolio.contract import pod

ROOT = Path(__file__).parent.parent.parent
ROOMS = ("portfolio", "operator", "edge", "pruner_job", "kubectl", "scripts")
CONTRACT = ROOT / "portfolio/edgefolio/contract/pod.py"
#: The operator's own variables, which the chart sets: one has the name of one of the agent's.
NOT_OF_PODS = ROOT / "operator/edgefolio_operator/settings.py"
#: Short words mean other things elsewhere; as the name of a part of a pod they stand in such fields.
NAME_FIELDS = {"name", "containerName", "port", "targetPort"}
#: Paths that Kubernetes and POSIX chose.
OF_OTHERS = {pod.TOKEN_MOUNT, pod.SHARED_MEMORY_MOUNT}
#: Commands that run Triton on a desktop have defaults of their own.
OWN_PORTS = ROOT / "edge/edgefolio_edge/cli"


def constants() -> dict[str, str | int]:
    return {name: value for name, value in vars(pod).items() if name.isupper() and not name.startswith("_")}


def values(*endings: str) -> set[str | int]:
    return {value for name, value in constants().items() if name.endswith(endings)} - OF_OTHERS


UNAMBIGUOUS = values("_VARIABLE", "_MOUNT", "_FILE", "_MESSAGE", "POD_NAME", "POD_NAMESPACE") | {"pvc://"}
NAMES = values("_CONTAINER", "_VOLUME", "_PORT_NAME")
PORTS = values("_PORT")


def literals(tree: ast.AST) -> Iterator[tuple[int, str | int]]:
    """Literals of a source that say what the contract says; what is only said in a docstring does not count."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                named = isinstance(key, ast.Constant) and key.value in NAME_FIELDS
                if named and isinstance(value, ast.Constant) and value.value in NAMES:
                    yield value.lineno, value.value  # type: ignore[misc]
        if not isinstance(node, ast.Constant) or id(node) in docstrings:
            continue
        if isinstance(node.value, str) and any(_says(node.value, str(literal)) for literal in UNAMBIGUOUS):
            yield node.lineno, node.value
        if isinstance(node.value, int) and node.value in PORTS:
            yield node.lineno, node.value


def _says(text: str, literal: str) -> bool:
    """A path is said by itself or followed by more of it; everything else by itself, or in a pattern or a script."""
    if literal.startswith("/"):
        return text == literal or text.startswith(f"{literal}/")
    return text == literal or f"^{literal}" in text or f"${literal}" in text


def sources() -> list[Path]:
    return [
        path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")) if path not in (CONTRACT, NOT_OF_PODS)
    ]


def test_no_name_of_the_contract_stands_twice() -> None:
    assert len(sources()) > 200
    found = [
        f"{path.relative_to(ROOT)}:{line}: {literal!r}"
        for path in sources()
        for line, literal in literals(ast.parse(path.read_text(encoding="utf-8")))
        if path.parent != OWN_PORTS or literal not in PORTS
    ]
    assert not found, "\n".join(found)


def test_the_contract_and_this_test_tell_names_apart() -> None:
    for kind in ("_VARIABLE", "_MOUNT", "_PORT", "_CONTAINER", "_VOLUME"):
        of_kind = [value for name, value in constants().items() if name.endswith(kind)]
        assert len(set(of_kind)) == len(of_kind) > 3, kind
    source = 'a = {"name": "agent"}\nb = "EDGEFOLIO_MODELS"\nc = 8001\nd = "/claims/x"\ne = "^pvc://(.*)"\nf = "agent"'
    assert [line for line, _ in literals(ast.parse(source))] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("uri", "claim", "path"),
    [
        ("pvc://models", "models", "/claims/models"),
        ("pvc://models/", "models", "/claims/models/"),
        ("pvc://a.b-c/d/e.npz", "a.b-c", "/claims/a.b-c/d/e.npz"),
        ("s3://bucket/path", None, "s3://bucket/path"),
        ("pvc://Upper/x", None, "pvc://Upper/x"),
        ("pvc:///x", None, "pvc:///x"),
        ("pvc://a..", None, "pvc://a.."),
    ],
)
def test_claims(uri: str, claim: str | None, path: str) -> None:
    assert (pod.claim_of(uri), pod.path_in_pod(uri)) == (claim, path)
    assert pod.path_in_pod(uri, claims="/elsewhere") == path.replace("/claims", "/elsewhere")
