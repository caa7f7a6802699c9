"""The profile that an agent predicts with: looked for or ordered, verified, kept for when the repository is away."""

from __future__ import annotations

from pathlib import Path

import pytest
from draft_profiles import EPYC, PI, XEON, draft_node_profile
from triton_portfolios import MODEL, publish, revealing_model

from edgefolio.manifest import Manifest, PublishedManifest, sha256_of
from edgefolio.processor_class import Processor
from edgefolio.repository import Repository, layout
from edgefolio.repository.profiles import publish_profile
from edgefolio.repository.signature import SigningKey, VerificationKey, new_key_pair
from edgefolio.specification.endpoint import ProfileOrder
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.node_profiles import LOOK_SECONDS, RETRY_SECONDS, NodeProfiles, OrderedProfile
from edgefolio_edge.models.synchronizer import Synchronizer


class Node:
    """A node with a processor, a repository and a clock that the test moves."""

    def __init__(self, folder: Path, processor: Processor = EPYC) -> None:
        self.folder = folder
        self.processor = processor
        self.now = 0.0
        self.order: ProfileOrder | None = None
        self.wanted: tuple[int, str] | None = None
        self.uri = str(folder / "portfolios")
        self.key: VerificationKey | None = None
        self.store = ModelStore(folder / "state", model=MODEL, model_repository=folder / "models")

    def publish(self, *tags: int) -> Manifest:
        return publish(self.folder / "portfolios", [revealing_model(tag) for tag in tags])

    def measure(self, manifest: Manifest, node: Processor, *, times: float = 2.0, replace: bool = False) -> str:
        published = publish_profile(
            Repository.open(self.uri), draft_node_profile(manifest, node, times=times), replace=replace
        )
        assert published is not None
        return published.sha256

    def tell(self, processor: Processor, digest: str) -> None:
        self.order = ProfileOrder(name=processor.class_name, digest=digest, evidence="as ordered")

    def ask(self, manifest: Manifest) -> None:
        self.wanted = (manifest.revision, sha256_of(manifest.to_bytes()))

    def ordered(self) -> OrderedProfile | None:
        return None if self.wanted is None else OrderedProfile(manifest_sha256=self.wanted[1], order=self.order)

    def profiles(self, *, ordered: bool) -> NodeProfiles:
        return NodeProfiles(
            self.store.manifests.directory,
            self.processor,
            ordered=self.ordered if ordered else None,
            clock=lambda: self.now,
        )

    def synchronizer(self, manifest: Manifest, *, ordered: bool) -> Synchronizer:
        self.ask(manifest)
        return Synchronizer(
            lambda: Repository.open(self.uri, verification_key=self.key),
            self.store,
            ordered=(lambda: self.wanted) if ordered else None,
            node_profiles=self.profiles(ordered=ordered),
        )


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_an_agent_of_one_machine_finds_the_profile_of_its_class_and_keeps_it(node: Node) -> None:
    manifest = node.publish(1, 2)
    digest = node.measure(manifest, EPYC)
    node.measure(manifest, XEON)
    synced = node.synchronizer(manifest, ordered=False).step()
    assert synced.complete
    assert synced.profile is not None
    assert synced.profile.digest == digest
    assert synced.profile.profile is not None
    assert synced.profile.profile.class_name == EPYC.class_name
    # Started again while the repository is away.
    (node.folder / "portfolios").rename(node.folder / "away")
    again = node.synchronizer(manifest, ordered=False).step()
    assert again.unreachable is not None
    assert again.profile is not None
    assert (again.profile.digest, again.profile.profile) == (digest, synced.profile.profile)


def test_a_profile_that_comes_later_is_found_and_a_wrong_one_delays_nothing(node: Node) -> None:
    manifest = node.publish(1, 2)
    synchronizer = node.synchronizer(manifest, ordered=False)
    first = synchronizer.step()
    assert first.profile is not None
    assert first.profile.profile is None
    assert "scaled by the compute factor" in first.profile.evidence
    digest = node.measure(manifest, EPYC)
    assert synchronizer.step().profile == first.profile
    node.now += LOOK_SECONDS
    found = synchronizer.step().profile
    assert found is not None
    assert found.digest == digest
    Path(node.uri, layout.profile_path(MODEL, 1, EPYC.class_name)).write_bytes(b"{")
    node.now += LOOK_SECONDS
    synced = synchronizer.step()
    assert synced.complete
    assert synced.refusal is None
    assert synced.unreachable is None
    assert synced.profile is not None
    assert synced.profile.profile is None
    assert synced.profile.problem is not None
    # It is mended, and looked for again soon.
    node.measure(manifest, EPYC, replace=True)
    node.now += RETRY_SECONDS
    mended = synchronizer.step().profile
    assert mended is not None
    assert (mended.digest, mended.problem) == (digest, None)


def test_of_a_new_revision_the_old_profile_is_not_used(node: Node) -> None:
    first = node.publish(1, 2)
    node.measure(first, EPYC)
    synchronizer = node.synchronizer(first, ordered=False)
    assert synchronizer.step().profile is not None
    second = node.publish(3, 4)
    # Somebody copies the profile of before into the place of the new one.
    raw = Path(node.uri, layout.profile_path(MODEL, 1, EPYC.class_name)).read_bytes()
    target = Path(node.uri, layout.profile_path(MODEL, second.revision, EPYC.class_name))
    target.parent.mkdir()
    target.write_bytes(raw)
    node.now += LOOK_SECONDS
    synced = synchronizer.step()
    assert synced.manifest == second
    assert synced.profile is not None
    assert synced.profile.profile is None


def test_an_agent_of_a_cluster_takes_what_it_is_ordered_and_nothing_else(node: Node) -> None:
    manifest = node.publish(1, 2)
    own, other = node.measure(manifest, EPYC), node.measure(manifest, PI)
    synchronizer = node.synchronizer(manifest, ordered=True)
    held = synchronizer.step().profile
    assert held is not None
    assert held.profile is None, "nothing is ordered: the manifest's own, whatever lies there"
    node.tell(PI, other)
    held = synchronizer.step().profile
    assert held is not None
    assert (held.digest, held.evidence) == (other, "as ordered")
    # Other bytes than the ordered ones, though they are a profile of this revision.
    node.tell(EPYC, "1" * 64)
    node.now += RETRY_SECONDS
    held = synchronizer.step().profile
    assert held is not None
    assert held.profile is None
    assert held.problem is not None
    assert "digest" in held.problem
    node.tell(EPYC, own)
    held = synchronizer.step().profile
    assert held is not None
    assert held.digest == own
    # The order is withdrawn.
    node.order = None
    held = synchronizer.step().profile
    assert held is not None
    assert held.profile is None


def test_what_serves_keeps_its_profile_until_the_next_revision_is_there(node: Node) -> None:
    first = node.publish(1, 2)
    node.tell(EPYC, node.measure(first, EPYC))
    synchronizer = node.synchronizer(first, ordered=True)
    before = synchronizer.step().profile
    assert before is not None
    assert before.digest is not None
    second = node.publish(3, 4)
    node.ask(second)
    node.tell(EPYC, node.measure(second, EPYC, times=3))
    (damaged,) = Path(node.uri).glob("models/*/201/model.onnx")
    raw = damaged.read_bytes()
    damaged.write_bytes(b"other")
    synced = synchronizer.step()
    assert synced.manifest == first
    assert synced.profile == before
    # And then takes that of the new one with it.
    damaged.write_bytes(raw)
    fresh = node.synchronizer(second, ordered=True)
    synced = fresh.step()
    assert synced.manifest == second
    assert synced.profile is not None
    assert node.order is not None
    assert synced.profile.digest == node.order.digest


def test_an_ordered_profile_is_kept_over_a_restart_without_the_repository(node: Node) -> None:
    manifest = node.publish(1, 2)
    digest = node.measure(manifest, EPYC)
    node.tell(EPYC, digest)
    assert node.synchronizer(manifest, ordered=True).step().profile is not None
    (node.folder / "portfolios").rename(node.folder / "away")
    held = node.synchronizer(manifest, ordered=True).synced.profile
    assert held is not None
    assert held.digest == digest
    # What lies on disk is believed with the order's digest alone.
    kept = next(node.store.manifests.directory.glob("profile-*.json"))
    kept.write_bytes(kept.read_bytes().replace(b'"busyPercent": 0.0', b'"busyPercent": 1.0'))
    held = node.synchronizer(manifest, ordered=True).synced.profile
    assert held is not None
    assert held.profile is None


def test_with_a_key_an_unsigned_profile_is_not_taken(node: Node) -> None:
    secret, public = new_key_pair()
    key = SigningKey.parse(secret, field="key")
    node.key = VerificationKey.parse(public.decode(), field="key")
    manifest = node.publish(1, 2)
    storage = Repository.open(node.uri).storage
    signature = key.sign(PublishedManifest.of(manifest).raw, comment="edgefolio")
    storage.write(layout.signature_path(MODEL, 1), signature)
    node.measure(manifest, EPYC)
    synchronizer = node.synchronizer(manifest, ordered=False)
    synced = synchronizer.step()
    assert synced.complete
    assert synced.profile is not None
    assert synced.profile.profile is None
    assert "not signed" in str(synced.profile.problem)
    publish_profile(Repository.open(node.uri), draft_node_profile(manifest, EPYC), replace=True, signing_key=key)
    node.now += RETRY_SECONDS
    taken = synchronizer.step().profile
    assert taken is not None
    assert taken.profile is not None


def test_a_place_that_fails_delays_nothing(node: Node) -> None:
    manifest = node.publish(1, 2)
    digest = node.measure(manifest, EPYC)
    # A folder in place of the file cannot be read.
    path = Path(node.uri, layout.profile_path(MODEL, 1, EPYC.class_name))
    raw = path.read_bytes()
    path.unlink()
    path.mkdir()
    for ordered in (False, True):
        node.tell(EPYC, digest)
        synced = node.synchronizer(manifest, ordered=ordered).step()
        assert synced.complete
        assert synced.unreachable is None
        assert synced.profile is not None
        assert synced.profile.profile is None
    path.rmdir()
    path.write_bytes(raw)
    found = node.synchronizer(manifest, ordered=True).step().profile
    assert found is not None
    assert found.digest == digest
