"""Threat: a manifest or pointer that kills what reads it, for good, even after the repository was mended."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drafts import draft_of
from hypothesis import given, settings
from hypothesis import strategies as st
from limited_process import run_limited
from triton_portfolios import MODEL, publish, revealing_model

from edgefolio.contract.job_report import LARGEST_MESSAGE_BYTES, FailureReport, PublishedReport
from edgefolio.decision import decide, profiles_from_manifest
from edgefolio.decision.explain import explain_choice
from edgefolio.decision.types import MemoryState, Objectives, Observation, ServerState, State
from edgefolio.errors import IntegrityError
from edgefolio.manifest import CurrentPointer, Manifest, PublishedManifest, sha256_of
from edgefolio.repository import Repository
from edgefolio.specification.serving import Switching
from edgefolio_edge.check import look
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.probe import batch_of
from edgefolio_edge.models.rehearsal import require_usable
from edgefolio_edge.models.repository_audit import verify_repository
from edgefolio_edge.models.synchronizer import Synchronizer
from edgefolio_edge.models.triton_configuration import as_text, configuration_of

VALID: dict[str, Any] = json.loads(draft_of({"small": b"a", "large": b"bb"}).to_bytes())
VALID["specification"] = {"seed": 1, "methods": {"oneShot": {"macsPercent": [40]}}}
VALID["variants"][0]["settings"] = {"notes": ["a"], "seconds": 3.7}
VALID["variants"][0]["layers"] = [{"name": "conv", "before": 16, "after": 8}]
VALID["rejected"] = [{"name": "x", "reason": "slow"}]


def deep(levels: int) -> Any:
    return json.loads("[" * levels + "]" * levels)


EXTREMES: dict[str, Any] = {
    "null": None,
    "true": True,
    "empty text": "",
    "empty list": [],
    "empty object": {},
    "text": "x" * 100_000,
    "half a pair": "\ud800",
    "escape": "\x1b]0;owned\x07\x1b[2J",
    "new line": "a\nsound   digits, revision 1",
    "right to left": "\u202eabc",
    "NUL": "a\0b",
    "way out": "../../etc/passwd",
    "0": 0,
    "-1": -1,
    "65536": 65536,
    "2^31": 2**31,
    "2^53": 2**53,
    "2^63": 2**63,
    "10^30": 10**30,
    "10^400": 10**400,
    "-10^400": -(10**400),
    "0.5": 0.5,
    "1e308": 1e308,
    "-1e308": -1e308,
    "5e-324": 5e-324,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "deep": deep(500),
    "rather deep": deep(30),
    "wide": ["x"] * 200_000,
    "sizes": [-2, -1, 8, 8],
    "large sizes": [2**20, 2**20, 2**20],
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of each value in a document, but the second variant's, which are of the same fields."""
    if path:
        yield path
    if path[:2] != ("variants", 1):
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            yield from places(inner, (*path, key))


def changed(*changes: tuple[tuple[Any, ...], Any]) -> bytes:
    document = copy.deepcopy(VALID)
    for path, value in changes:
        target = document
        try:
            for key in path[:-1]:
                target = target[key]
            # One list at two places may end within itself.
            target[path[-1]] = json.loads(json.dumps(value))
        except (KeyError, IndexError, TypeError):
            continue  # another change has removed the place
    return json.dumps(document).encode()


def use(raw: bytes) -> None:
    """All that is done with a manifest, or an IntegrityError."""
    manifest = PublishedManifest.from_bytes(raw, location="1.json").manifest
    require_usable(manifest, location="1.json")
    assert Manifest.from_bytes(manifest.to_bytes(), location="x") == manifest
    profiles = profiles_from_manifest(manifest)
    for limit in (None, 0, 2**53):
        memory = None if limit is None else MemoryState(
            limit_bytes=limit, working_set_bytes=limit, node_available_bytes=limit, age_seconds=0
        )  # fmt: skip
        for objectives in (Objectives(), Objectives(latency_p95_milliseconds=1e-3, max_memory_bytes=1)):
            seen = Observation(active_variant=None, resident_variants=(), server=ServerState.SERVING, memory=memory)
            decide(
                observation=seen,
                objectives=objectives,
                profiles=profiles,
                switching=Switching(),
                state=State(),
                now=1e9,
            )
            explain_choice(profiles=profiles, objectives=objectives, switching=Switching(), memory_bytes=limit)
    as_text(configuration_of(manifest, model_name="digits", threads=1, versions=[101], warm_up=True)).encode()
    for variant in manifest.variants:
        batch_of(manifest, variant.probe, samples=2)
    assert len(PublishedReport.of(manifest, digest="0" * 64).to_message().encode()) <= LARGEST_MESSAGE_BYTES


def refusal(raw: bytes) -> str | None:
    found = None
    try:
        use(raw)
    except IntegrityError as error:
        found = str(error)
    assert found is None or (found.isprintable() and len(found) < 2000)
    return found


def test_the_unchanged_one_is_used() -> None:
    assert refusal(changed()) is None


@pytest.mark.parametrize("path", list(places(VALID)), ids=lambda path: ".".join(map(str, path)))
def test_every_value_at_every_place_is_used_or_refused(path: tuple[Any, ...]) -> None:
    for value in EXTREMES.values():
        refusal(changed((path, value)))


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.sampled_from(list(places(VALID))), st.sampled_from(list(EXTREMES.values()))),
        min_size=2,
        max_size=5,
    )
)
def test_several_at_once_too(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    refusal(changed(*changes))


@settings(max_examples=200, deadline=None)
@given(raw=st.binary(max_size=200), at=st.integers(0, 4000), cut=st.integers(0, 30))
def test_every_text_is_used_or_refused(raw: bytes, at: int, cut: int) -> None:
    whole = changed()
    refusal(whole[:at] + raw + whole[at + cut :])


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 10_000_000,
        b'{"a":' * 100_000,
        b"[]," * 5_000_000,
        b'"' * 10_000_000,
        b'{"schemaVersion": "edgefolio.dev/manifest/v1", "model": "a", "model": "b"}',
        b'{"revision": ' + b"9" * 100_000 + b"}",
        b'{"scale": 1e999}',
        "{}".encode("utf-16"),
        b'\xef\xbb\xbf{"schemaVersion": "edgefolio.dev/manifest/v1"}',
        b'{"x": "\xed\xa0\x80"}',
    ],
    ids=lambda raw: repr(raw[:12]),
)
def test_a_text_that_costs_more_than_it_says_is_refused_as_manifest_and_pointer(raw: bytes) -> None:
    assert refusal(raw) is not None
    with pytest.raises(IntegrityError):
        CurrentPointer.from_bytes(raw, location="current.json")


@pytest.mark.parametrize("values", ["1", "0.5", "null", "1, 2", "-0"])
def test_a_text_of_nothing_but_values_takes_no_memory_of_the_agent(values: str, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from edgefolio.errors import IntegrityError\n"
        "from edgefolio.manifest import Manifest\n"
        "#limit\n"
        "part = sys.argv[1].encode() + b','\n"
        "raw = b'{\"labels\": [' + part * ((63 << 20) // len(part)) + b'0]}'\n"
        "try:\n"
        "    Manifest.from_bytes(raw, location='1.json')\n"
        "except IntegrityError as error:\n"
        "    print(error)\n"
    )
    ended = run_limited(code, values, memory=256 << 20, folder=tmp_path)
    assert "it has too many parts" in ended.stdout, ended.stderr


@pytest.mark.parametrize(
    "change",
    [{"revision": revision} for revision in (0, -1, 1.5, 1.0, True, "2", 2**70, 2**24 + 1, None, "x")]
    + [{"model": "a\n"}, {"manifestSha256": "A" * 64}, {"manifestSha256": "a" * 64 + "\n"}, {"more": 1}],
    ids=str,
)
def test_a_pointer_of_other_values_is_refused(change: dict[str, Any]) -> None:
    pointer = {"model": "a", "revision": 1, "manifestSha256": "a" * 64, **change}
    with pytest.raises(IntegrityError):
        CurrentPointer.from_bytes(json.dumps(pointer).encode(), location="current.json")


POISONS: dict[str, list[tuple[tuple[Any, ...], Any]]] = {
    "half a pair": [(("variants", 0, "settings"), {"x": "\ud800"})],
    "deep settings": [(("variants", 0, "settings"), {"x": deep(400)})],
    "negative sizes": [(("variants", 0, "probe", "inputs", 0, "shape"), [-2, -1, 12, 12])],
    "memory": [(("variants", 0, "profiles", 0, "memoryPeakBytes"), 10**400)],
    "batch": [(("variants", 0, "profiles", 0, "latencies", 0, "batchSize"), 10**400)],
    "size": [(("variants", 0, "sizeBytes"), 10**400)],
    "values beyond their type": [(("variants", 0, "probe", "inputs", 0, "values", 0), 1e308)],
    "values of another type": [
        (("signature", "inputs", 0, "datatype"), "INT8"), (("variants", 0, "probe", "inputs", 0, "values", 0), -1e5),
    ],
    "no inputs": [(("variants", 0, "probe", "inputs"), [])],
}  # fmt: skip


def poison(folder: Path, revision: int, changes: list[tuple[tuple[Any, ...], Any]]) -> bytes:
    """Change a published manifest in place, with the pointer's digest right."""
    path = folder / "revisions" / MODEL / f"{revision}.json"
    document = json.loads(path.read_bytes())
    for where, value in changes:
        target = document
        for key in where[:-1]:
            target = target[key]
        target[where[-1]] = value
    raw = json.dumps(document).encode()
    path.write_bytes(raw)
    pointer = {"model": MODEL, "revision": revision, "manifestSha256": sha256_of(raw)}
    (path.parent / "current.json").write_text(json.dumps(pointer))
    return raw


@pytest.mark.parametrize("name", POISONS)
def test_a_poisoned_revision_is_refused_once_and_the_next_is_taken(tmp_path: Path, name: str) -> None:
    repository, told = tmp_path / "portfolios", []
    first = publish(repository, [revealing_model(1)])
    synchronizer = Synchronizer(
        lambda: Repository.open(str(repository)),
        ModelStore(tmp_path / "state", model=MODEL),
        changed=lambda: told.append(synchronizer.synced.refusal),
    )
    assert synchronizer.step().complete
    told.clear()
    publish(repository, [revealing_model(2)])
    poison(repository, 2, POISONS[name])
    for _ in range(3):
        synced = synchronizer.step()
        assert synced.manifest == first
        assert synced.refusal is not None
        assert synced.refusal.revision == 2
    assert len(told) == 1
    assert not verify_repository(Repository.open(str(repository))).is_sound
    report = look(str(repository), MODEL)
    assert isinstance(report, FailureReport)
    assert report.kind == "Refused"
    third = publish(repository, [revealing_model(3)])
    synced = synchronizer.step()
    assert (synced.manifest, synced.complete, synced.refusal) == (third, True, None)


@pytest.mark.parametrize("name", POISONS)
def test_an_agent_whose_disk_is_poisoned_starts_and_follows(tmp_path: Path, name: str) -> None:
    """An agent of an earlier version took the revision, and ended at it at each start."""
    repository, state = tmp_path / "portfolios", tmp_path / "state"
    publish(repository, [revealing_model(1)])
    Synchronizer(lambda: Repository.open(str(repository)), ModelStore(state, model=MODEL)).step()
    raw = poison(repository, 1, POISONS[name])
    kept = state / "revisions" / MODEL
    (kept / "1.json").write_bytes(raw)
    good = {"model": MODEL, "revision": 1, "manifestSha256": sha256_of(raw)}
    (kept / "good.json").write_text(json.dumps(good))
    synchronizer = Synchronizer(lambda: Repository.open(str(repository)), ModelStore(state, model=MODEL))
    assert synchronizer.synced.manifest is None
    assert synchronizer.synced.refusal is not None
    assert synchronizer.step().refusal is not None
    second = publish(repository, [revealing_model(2)])
    assert synchronizer.step().manifest == second
    assert synchronizer.step().refusal is None


@pytest.mark.parametrize("raw", [b"", b"{", b"[" * 200_000, b"null", b'{"revision": 1e400}', b"\xff"], ids=repr)
def test_a_torn_note_of_the_last_good_revision_is_dropped(tmp_path: Path, raw: bytes) -> None:
    repository, state = tmp_path / "portfolios", tmp_path / "state"
    manifest = publish(repository, [revealing_model(1)])
    Synchronizer(lambda: Repository.open(str(repository)), ModelStore(state, model=MODEL)).step()
    (state / "revisions" / MODEL / "good.json").write_bytes(raw)
    synchronizer = Synchronizer(lambda: Repository.open(str(repository)), ModelStore(state, model=MODEL))
    assert synchronizer.synced.manifest is None
    assert synchronizer.step().manifest == manifest
    assert synchronizer.step().refusal is None
