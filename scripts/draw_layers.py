"""Draw ``docs/layers.svg``: the folders of every room and their imports, from the code.

    scripts/draw_layers.py          write the picture
    scripts/draw_layers.py --check  exit code 1 if it is stale

A folder stands above all that it imports. Modules beside the folders are left out, and an import through one of them is
the folder's. Imports that follow from others are left out too; one that closes a circle is drawn red.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

import grimp

PICTURE = Path(__file__).parents[1] / "docs" / "layers.svg"
SHARED = "edgefolio"
#: Package and what stands over its frame; the shared one comes last, below the others.
ROOMS = {
    "edgefolio_pruner": "pruner_job: makes the variants",
    "edgefolio_operator": "operator: decides in the cluster",
    "edgefolio_edge": "edge: the agent beside Triton",
    "edgefolio_kubectl": "kubectl: the plugin",
    SHARED: "portfolio: what all rooms share",
}
BOX, HEIGHT, GAP, ROW, LANE = 128, 42, 12, 84, 8
STYLE = """
    .page { fill: #ffffff; } .frame { fill: #f7fafc; stroke: #a0aec0; } .box { fill: #eef4fb; stroke: #3b6ea5; }
    .room, .name { fill: #1a202c; } .room { font-size: 14px; font-weight: 600; }
    .uses { fill: #4a5568; font-size: 9.5px; } .name, .uses { text-anchor: middle; }
    .arrow { fill: none; stroke: #4a5568; stroke-width: 1.2; } .circle { stroke: #c53030; stroke-dasharray: 5 3; }
    .head { fill: #4a5568; } .circle-head { fill: #c53030; }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117; } .frame { fill: #161b22; stroke: #6e7681; } .box { fill: #1f3350; stroke: #6ea8e0; }
      .room, .name { fill: #e6edf3; } .uses { fill: #a9b4c0; } .arrow { stroke: #a9b4c0; } .head { fill: #a9b4c0; }
      .circle { stroke: #ff7b72; } .circle-head { fill: #ff7b72; }
    }"""

#: Folder -> the folders that it imports.
Imports = Mapping[str, frozenset[str]]


def folder_imports() -> dict[str, frozenset[str]]:
    """Which folders import which, by dotted name, over all rooms."""
    graph = grimp.build_graph(*ROOMS, cache_dir=None)
    folders = {name for room in ROOMS for name in graph.find_children(room) if graph.find_children(name)}

    def folder_of(module: str) -> str | None:
        return next((name for name in folders if module == name or module.startswith(f"{name}.")), None)

    def reached(module: str, passed: set[str]) -> Iterable[str]:
        for target in sorted(graph.find_modules_directly_imported_by(module)):
            folder = folder_of(target)
            if folder is not None:
                yield folder
            elif target not in passed and target not in ROOMS:
                passed.add(target)
                yield from reached(target, passed)

    found: dict[str, set[str]] = {name: set() for name in sorted(folders)}
    for module in sorted(graph.modules):
        importer = folder_of(module)
        if importer is not None:
            found[importer].update(target for target in reached(module, set()) if target != importer)
    return {name: frozenset(targets) for name, targets in found.items()}


def backward(imports: Imports) -> set[tuple[str, str]]:
    """The imports that close circles, by the greedy rule of Eades, Lin and Smyth."""
    left, first, last = set(imports), list[str](), list[str]()
    while left:
        into = {name: sum(name in imports[other] for other in left) for name in left}
        out = {name: len(imports[name] & left) for name in left}
        sink = min((name for name in left if out[name] == 0), default=None)
        source = min((name for name in left if into[name] == 0), default=None)
        chosen = sink or source or min(left, key=lambda name: (into[name] - out[name], name))
        if sink:
            last.insert(0, chosen)
        else:
            first.append(chosen)
        left.remove(chosen)
    place = {name: number for number, name in enumerate([*first, *last])}
    return {(a, b) for a in imports for b in imports[a] if place[a] > place[b]}


def reduced(imports: Imports) -> dict[str, frozenset[str]]:
    """``imports``, free of circles, without those that follow from others."""

    def below(name: str) -> set[str]:
        return set(imports[name]).union(*(below(target) for target in imports[name]))

    return {a: frozenset(imports[a] - set().union(*(below(b) for b in imports[a]))) for a in imports}


@dataclass
class Item:
    """A folder, or the lane in which an arrow passes a row (``folder`` is empty)."""

    folder: str
    row: int
    x: float = 0.0
    above: list[Item] = field(default_factory=list)

    @property
    def width(self) -> int:
        """Of a box, or of a lane."""
        return BOX if self.folder else LANE


@dataclass
class Room:
    """The picture of one room, laid out from its upper left corner."""

    rows: list[list[Item]]
    arrows: list[tuple[list[Item], bool]]
    width: float

    @property
    def height(self) -> float:
        """Of the frame."""
        return len(self.rows) * ROW + 12


def laid_out(imports: Imports, *, least: float) -> Room:
    """Rows of folders, each above what it imports, and the arrows through the rows; at least ``least`` wide."""
    turned = backward(imports)
    edges = {a: {b for b in imports[a] if (a, b) not in turned} for a in imports}
    edges = {a: set(targets) for a, targets in reduced({a: frozenset(edges[a]) for a in edges}).items()}
    for a, b in turned:
        edges[b].add(a)

    def depth(name: str) -> int:
        return max((depth(a) + 1 for a in edges if name in edges[a]), default=0)

    items = {name: Item(name, depth(name)) for name in sorted(imports)}
    rows: list[list[Item]] = [[] for _ in range(max(item.row for item in items.values()) + 1)]
    for item in items.values():
        rows[item.row].append(item)
    arrows = []
    for a in sorted(edges):
        for b in sorted(edges[a]):
            way = [items[a]]
            for number in range(items[a].row + 1, items[b].row):
                way.append(Item("", number, above=[way[-1]]))
                rows[number].append(way[-1])
            items[b].above.append(way[-1])
            arrows.append(([*way, items[b]], (b, a) in turned))
    for row in rows:
        # Below the middle of what imports it: few arrows cross.
        row.sort(key=lambda item: (sum(one.x for one in item.above) / max(1, len(item.above)), item.folder))
        place = 0.0
        for item in row:
            item.x = place + item.width / 2
            place += item.width + GAP
        for item in row:
            item.x -= place / 2
    width = max(least, *(sum(item.width + GAP for item in row) + 2 * GAP for row in rows))
    for row in rows:
        for item in row:
            item.x += width / 2 + GAP / 2
    return Room(rows, arrows, width)


def arrow(way: list[Item], top: float, left: float, *, is_circle: bool) -> str:
    """An arrow along ``way``, downwards; the head of one that closes a circle is at its upper end."""
    x, y = left + way[0].x, top + way[0].row * ROW + HEIGHT
    path = f"M{x:.0f} {y:.0f}"
    for item in way[1:]:
        to_x, to_y = left + item.x, top + item.row * ROW
        middle = (y + to_y) / 2
        path += f"C{x:.0f} {middle:.0f} {to_x:.0f} {middle:.0f} {to_x:.0f} {to_y:.0f}"
        x, y = to_x, to_y + HEIGHT
        if not item.folder:
            path += f"V{y:.0f}"
    style = 'class="arrow circle" marker-start="url(#circle)"' if is_circle else 'class="arrow" marker-end="url(#head)"'
    return f'<path {style} d="{path}"/>'


def room_svg(
    name: str, room: Room, shared: Mapping[str, list[str]], left: float, top: float, width: float
) -> list[str]:
    """The frame of a room at ``left``, ``top``, its boxes and arrows."""
    inner = left + (width - room.width) / 2
    first = top + 36
    lines = [
        f'<rect class="frame" x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{room.height:.0f}" rx="9"/>',
        f'<text class="room" x="{left + 12:.0f}" y="{top + 22:.0f}">{escape(ROOMS[name])}</text>',
    ]
    lines += [arrow(way, first, inner, is_circle=is_circle) for way, is_circle in room.arrows]
    for item in (item for row in room.rows for item in row if item.folder):
        x, y = inner + item.x, first + item.row * ROW
        uses = shared.get(item.folder, [])
        lines.append(
            f'<rect class="box" x="{x - BOX / 2:.0f}" y="{y:.0f}" width="{BOX}" height="{HEIGHT}" rx="6"/>'
            f'<text class="name" x="{x:.0f}" y="{y + (26 if not uses else 17):.0f}">{item.folder.split(".")[-1]}</text>'
        )
        lines += [
            f'<text class="uses" x="{x:.0f}" y="{y + 28 + 10 * number:.0f}">{", ".join(part)}</text>'
            for number, part in enumerate((uses[:2], uses[2:]))
            if part
        ]
    return lines


def drawn() -> str:
    """The whole picture."""
    imports = folder_imports()
    rooms = {}
    for room in ROOMS:
        own = {name for name in imports if name.split(".")[0] == room}
        rooms[room] = laid_out({name: imports[name] & own for name in sorted(own)}, least=24 + 8 * len(ROOMS[room]))
    shared = {
        name: sorted(target.split(".")[1] for target in targets if target.split(".")[0] == SHARED)
        for name, targets in imports.items()
        if name.split(".")[0] != SHARED
    }
    upper = [room for room in ROOMS if room != SHARED]
    total = sum(rooms[room].width for room in upper) + GAP * (len(upper) + 1)
    bottom = max(rooms[room].height for room in upper) + GAP + 36
    lines, left = list[str](), float(GAP)
    for room in upper:
        lines += room_svg(room, rooms[room], shared, left, GAP, rooms[room].width)
        x = left + rooms[room].width / 2
        way = f"M{x:.0f} {GAP + rooms[room].height:.0f}V{bottom:.0f}"
        lines.append(f'<path class="arrow" marker-end="url(#head)" d="{way}"/>')
        left += rooms[room].width + GAP
    lines += room_svg(SHARED, rooms[SHARED], {}, GAP, bottom, total - 2 * GAP)
    height = bottom + rooms[SHARED].height + 30
    note = "A folder stands above what it imports; small: its imports from portfolio. Red: imports that close a circle."
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total:.0f} {height:.0f}" '
        'font-family="system-ui, sans-serif" font-size="12.5">\n'
        "  <!-- Written by scripts/draw_layers.py from the imports of the code. -->\n"
        f"  <style>{STYLE}\n  </style>\n  <defs>"
        + "".join(
            f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path class="{style}" d="M0 0 10 5 0 10z"/></marker>'
            for name, style in (("head", "head"), ("circle", "circle-head"))
        )
        + f'</defs>\n  <rect class="page" width="{total:.0f}" height="{height:.0f}"/>\n'
    )
    foot = f'  <text class="uses" style="text-anchor: start" x="{GAP}" y="{height - 10:.0f}">{note}</text>\n</svg>\n'
    return head + "".join(f"  {line}\n" for line in lines) + foot


def main() -> int:
    """Write the picture, or compare it; the exit code."""
    if "--check" in sys.argv[1:]:
        if PICTURE.read_text(encoding="utf-8") == drawn():
            return 0
        print("docs/layers.svg is stale; run: make docs", file=sys.stderr)
        return 1
    PICTURE.write_text(drawn(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
