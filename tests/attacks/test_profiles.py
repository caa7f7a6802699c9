"""Whoever can write profiles can make a choice worse, and do nothing else.

No figure within bounds keeps the core from deciding or makes it name a variant that the manifest does not; no number or
size of files, and no link, holds up a reader or leads it out of the repository.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from draft_profiles import EPYC, PI, XEON, draft_node_profile
from drafts import publish_draft
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefolio.decision import decide, profiles_from_manifest
from edgefolio.decision.profiles import rescaled
from edgefolio.decision.types import Action, Objectives, Observation, ServerState, State
from edgefolio.manifest import Manifest, PublishedManifest
from edgefolio.node_profile import MAXIMUM_PROFILE_BYTES, MeasuredLatency, PublishedProfile
from edgefolio.repository import Repository, layout
from edgefolio.repository.profiles import MOST_PROFILES, fitting_profile, profile_classes
from edgefolio.specification.serving import Switching


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, Manifest]:
    folder = tmp_path_factory.mktemp("place")
    manifest = publish_draft(str(folder / "repository"), folder / "files")
    return Repository.open(str(folder / "repository")), manifest


def fitting(repository: Repository, manifest: Manifest, node=EPYC):
    sha256 = PublishedManifest.of(manifest).sha256
    return fitting_profile(repository, manifest, node, manifest_sha256=sha256)


milliseconds = st.one_of(st.floats(1e-6, 1e8), st.sampled_from([1e-6, 1e8, 1.0]))
counts = st.one_of(st.integers(0, 2**53), st.sampled_from([0, 2**53]))


@settings(deadline=None, max_examples=150)
@given(mean=milliseconds, p95=milliseconds, load=milliseconds, peak=counts, steady=counts, batch=st.integers(1, 65_536))
def test_any_figures_within_bounds_are_decided_on(place, mean, p95, load, peak, steady, batch) -> None:
    _, manifest = place
    profile = draft_node_profile(manifest, EPYC)
    latency = MeasuredLatency(
        batch_size=batch, mean_milliseconds=mean, p50_milliseconds=mean, p95_milliseconds=p95, samples=1
    )
    figures = {
        "latencies": (latency,),
        "load_milliseconds": load,
        "memory_peak_bytes": peak,
        "memory_steady_bytes": steady,
    }
    first, *rest = profile.variants
    wrong = profile.model_copy(update={"variants": (first.model_copy(update=figures), *rest)})
    read = PublishedProfile.from_bytes(wrong.to_bytes(), location="here").profile
    profiles = profiles_from_manifest(manifest, measured=read)
    state = rescaled(
        State(compute_factor=2.0), before=profiles_from_manifest(manifest), after=profiles, active=first.name
    )
    decision, _ = decide(
        observation=Observation(active_variant=None, resident_variants=(), server=ServerState.SERVING),
        objectives=Objectives(latency_p95_milliseconds=20),
        profiles=profiles,
        switching=Switching(),
        state=state,
        now=0.0,
    )
    assert decision.action is Action.SWITCH
    assert decision.target in {variant.name for variant in manifest.variants}


def test_many_and_large_files_and_links_hold_nobody_up(place, tmp_path: Path) -> None:
    repository, manifest = place
    folder = Path(repository.uri, layout.profiles_folder("digits", 1))
    folder.mkdir(exist_ok=True)
    for number in range(1000):
        (folder / f"junk-{number}.json").write_bytes(b"[" * 10)
    with (folder / "a-huge-one.json").open("wb") as stream:
        stream.truncate(MAXIMUM_PROFILE_BYTES * 1000)
    outside = tmp_path / "outside.json"
    outside.write_bytes(draft_node_profile(manifest, PI).to_bytes())
    (folder / f"{PI.class_name}.json").symlink_to(outside)
    (folder / "..json").write_text("{}")
    assert len(profile_classes(repository, "digits", 1)) <= MOST_PROFILES
    found = fitting(repository, manifest)
    assert found.published is None
    assert len(found.refused) <= MOST_PROFILES
    # A link out of the repository is no profile of it, though its bytes are those of one.
    assert fitting(repository, manifest, PI).published is None
    # A good one of its own class is found all the same.
    good = draft_node_profile(manifest, XEON)
    (folder / f"{XEON.class_name}.json").write_bytes(good.to_bytes())
    assert fitting(repository, manifest, XEON).choice.is_own
