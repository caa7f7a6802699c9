"""Strict loader of one YAML document: bounded in size, depth and aliases; no duplicate keys, no tags but JSON's.

It reads what ``kubectl`` reads of the same file: dates and ``22:22`` stay text.
"""

from __future__ import annotations

from typing import Any

import yaml

#: etcd takes 1.5 MiB, a ConfigMap 1 MiB.
LARGEST_BYTES = 2**20
#: Values of the whole document, aliases counted each time they are used.
MOST_VALUES = 20_000
#: Lists and mappings inside one another.
DEEPEST = 32
_LONGEST_NUMBER = 64

_CORE = "tag:yaml.org,2002:"
_TAGS = frozenset(_CORE + name for name in ("map", "seq", "str", "int", "float", "bool", "null"))
_MERGE, _TIMESTAMP = _CORE + "merge", _CORE + "timestamp"


def load_yaml(text: str) -> Any:
    """The document in ``text`` as JSON types. Raises :class:`ValueError` with the fault and its line."""
    if len(text) > LARGEST_BYTES:
        raise ValueError(f"it is larger than {LARGEST_BYTES} bytes")
    try:
        # The C loader of PyYAML 6.0.3 ends the process at 50,000 brackets: a stack overflow.
        return yaml.load(text, Loader=_StrictLoader)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).replace('"<unicode string>", ', "").split()).rstrip(".")) from error


class _StrictLoader(yaml.SafeLoader):
    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._values += 1
        self._depth += 1
        if self._values > MOST_VALUES:
            raise _fault(f"it holds more than {MOST_VALUES} values", parent)
        if self._depth > DEEPEST:
            raise _fault("it is nested too deeply", parent)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        # Before anything is constructed: merged mappings are copied for each alias.
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _Expansion(self).measure(node)
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> Any:
        return _number(node) if ":" in node.value else super().construct_yaml_int(node)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> Any:
        return _number(node) if ":" in node.value else super().construct_yaml_float(node)


_StrictLoader.add_constructor(_CORE + "int", _StrictLoader.construct_yaml_int)
_StrictLoader.add_constructor(_CORE + "float", _StrictLoader.construct_yaml_float)


def _number(node: yaml.ScalarNode) -> str:
    text: str = node.value
    return text


class _Expansion:
    """Size and depth of a document with every alias written out. Raises on the first fault of a value or key."""

    def __init__(self, resolver: yaml.resolver.Resolver) -> None:
        self._resolver = resolver
        #: Values and depth of each node; ``None`` while it is measured.
        self._known: dict[int, tuple[int, int] | None] = {}

    def measure(self, node: yaml.Node) -> tuple[int, int]:
        if id(node) in self._known:
            known = self._known[id(node)]
            if known is None:
                raise _fault("an alias refers to what contains it", node)
            return known
        self._known[id(node)] = None
        if node.tag not in _TAGS:
            raise _fault(f"the tag {node.tag.removeprefix(_CORE)!r} is not known", node)
        if isinstance(node, yaml.ScalarNode):
            self._check_scalar(node)
        values, depth = 1, 0
        for inner in _inner_nodes(node):
            inner_values, inner_depth = self.measure(inner)
            values, depth = values + inner_values, max(depth, inner_depth)
        if values > MOST_VALUES:
            raise _fault(f"with its aliases it holds more than {MOST_VALUES} values", node)
        if depth >= DEEPEST:
            raise _fault("with its aliases it is nested too deeply", node)
        self._known[id(node)] = values, depth + 1
        return values, depth + 1

    def _check_scalar(self, node: yaml.ScalarNode) -> None:
        if node.tag == _CORE + "str":
            node.value = _whole(node)
            return
        # An explicit tag may be on any text, which PyYAML's constructors trip over: !!int without digits.
        read_as = self._resolver.resolve(yaml.ScalarNode, node.value, (True, False))  # type: ignore[no-untyped-call]
        if read_as != node.tag and (read_as, node.tag) != (_CORE + "int", _CORE + "float"):
            raise _fault(f"the value is no {node.tag.removeprefix(_CORE)}", node)
        if node.tag in (_CORE + "int", _CORE + "float") and len(node.value) > _LONGEST_NUMBER:
            raise _fault(f"a number has {len(node.value)} digits", node)


def _inner_nodes(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        _check_keys(node)
        return [value for _, value in node.value]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _check_keys(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if key.tag == _MERGE:
            continue
        if not isinstance(key, yaml.ScalarNode) or key.tag != _CORE + "str":
            shown = repr(key.value) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            raise _fault(f"the key {shown} is no text; write it in quotes", key)
        key.value = _whole(key)
        if key.value in seen:
            raise _fault(f"the field {key.value!r} is written twice", key)
        seen.add(key.value)


def _whole(node: yaml.ScalarNode) -> str:
    """The text with letters in one piece that JSON writes as two escapes: ``"\\ud83d\\ude42"``."""
    text: str = node.value
    try:
        return text if text.isprintable() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise _fault("a text holds half of a surrogate pair", node) from None


def _fault(problem: str, node: yaml.Node | None) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, None if node is None else node.start_mark)
