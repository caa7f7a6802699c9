"""Profiles of a published revision on classes of processors: read with verification, written one file a class.

Whoever writes one needs the right to write below ``revisions/``; it makes a choice better or worse, and vouches for no
byte that is served. A repository that is read with a verification key takes only profiles that this key has signed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefolio.decision.profiles import Measured, ProfileChoice, choose_profile, int8_variants
from edgefolio.errors import IntegrityError, TransientError, UserError
from edgefolio.manifest import Manifest, PublishedManifest
from edgefolio.node_profile import MAXIMUM_PROFILE_BYTES, NodeProfile, PublishedProfile
from edgefolio.node_profile import refused as refusal
from edgefolio.processor_class import Processor
from edgefolio.repository import layout
from edgefolio.repository.layout import MAXIMUM_SIGNATURE_BYTES
from edgefolio.repository.reading import Repository

if TYPE_CHECKING:
    from edgefolio.repository.signature import SigningKey

#: More classes than these are not read.
MOST_PROFILES = 64


@dataclass(frozen=True, kw_only=True)
class FittingProfile:
    """The profile for a node: the choice, its measurements (``None``: the manifest's own), and what was refused."""

    choice: ProfileChoice
    published: PublishedProfile | None = None
    refused: tuple[str, ...] = ()


def fitting_profile(
    repository: Repository, manifest: Manifest, node: Processor | None, *, manifest_sha256: str
) -> FittingProfile:
    """The profile of the node's own class, else the nearest of all that are there, the manifest's among them.

    A profile that fails verification is passed over, and said so. Raises
    :class:`~edgefolio.errors.TransientError` if the place cannot be read now.
    """
    refused: list[str] = []

    def verified(class_name: str) -> PublishedProfile | None:
        try:
            return published_profile(repository, manifest, class_name, manifest_sha256=manifest_sha256)
        except IntegrityError as error:
            refused.append(str(error))
        except TransientError:
            raise
        except UserError:
            pass  # a store that lets nobody list answers so where there is nothing
        return None

    of_manifest, int8 = Measured.of_manifest(manifest), int8_variants(manifest)
    own = None if node is None else verified(node.class_name)
    if own is not None:
        return FittingProfile(choice=choose_profile(node, (Measured.of(own.profile),)), published=own)
    choice = choose_profile(node, (of_manifest,), int8=int8)
    if choice.is_own or node is None:
        return FittingProfile(choice=choice, refused=tuple(refused))
    names = [name for name in _listed(repository, manifest) if name != node.class_name]
    found = {name: profile for name in names if (profile := verified(name)) is not None}
    candidates = (of_manifest, *(Measured.of(entry.profile) for entry in found.values()))
    choice = choose_profile(node, candidates, int8=int8)
    published = None if choice.measured.name is None else found[choice.measured.name]
    return FittingProfile(choice=choice, published=published, refused=tuple(refused))


def _listed(repository: Repository, manifest: Manifest) -> tuple[str, ...]:
    """:func:`profile_classes`; none where nothing may be listed."""
    try:
        return profile_classes(repository, manifest.model, manifest.revision)
    except TransientError:
        raise
    except UserError:
        return ()


def profile_classes(repository: Repository, model: str, revision: int) -> tuple[str, ...]:
    """Classes that a profile of ``revision`` is there for, as far as the place gives a listing."""
    names = repository.storage.names(layout.profiles_folder(model, revision))
    found = (layout.class_in(name) for name in names[: 2 * MOST_PROFILES])
    return tuple(name for name in found if name is not None)[:MOST_PROFILES]


def published_profile(
    repository: Repository, manifest: Manifest, class_name: str, *, manifest_sha256: str, sha256: str | None = None
) -> PublishedProfile | None:
    """The profile of ``manifest`` on ``class_name``; ``None`` if there is none.

    Raises :class:`IntegrityError` if it is wrong: another digest than ``sha256`` where one is given, another revision,
    manifest, variant or class, or without the signature of the repository's verification key.
    """
    path = layout.profile_path(manifest.model, manifest.revision, class_name)
    raw = repository.storage.read(path, maximum_bytes=MAXIMUM_PROFILE_BYTES)
    if raw is None:
        return None
    location = repository.location(path)
    if repository.verification_key is not None:
        signature_path = layout.profile_signature_path(manifest.model, manifest.revision, class_name)
        signature = repository.storage.read(signature_path, maximum_bytes=MAXIMUM_SIGNATURE_BYTES)
        repository.verification_key.require(raw, signature, location=location, what="profile")
    found = PublishedProfile.from_bytes(raw, location=location, sha256=sha256)
    if found.profile.class_name != class_name:
        raise refusal(f"it is the profile of class {found.profile.class_name}.", location=location)
    found.profile.require_of(manifest, manifest_sha256=manifest_sha256, location=location)
    return found


def wrong_profiles(repository: Repository, published: PublishedManifest) -> Iterator[IntegrityError]:
    """What is wrong with the profiles of a revision, as far as they can be listed: readers take none of these."""
    manifest = published.manifest
    for name in _listed(repository, manifest):
        try:
            published_profile(repository, manifest, name, manifest_sha256=published.sha256)
        except IntegrityError as error:
            yield error


def publish_profile(
    repository: Repository, profile: NodeProfile, *, replace: bool = False, signing_key: SigningKey | None = None
) -> PublishedProfile | None:
    """Write ``profile`` as that of its class; ``None`` if another is there and must not be ``replace``d.

    Each file is whole or absent. Between the two writes a reader with a key finds a profile whose signature does not
    fit, and takes the manifest's own instead.
    """
    published = PublishedProfile.of(profile)
    where = (profile.model, profile.revision, profile.class_name)
    storage, path = repository.storage, layout.profile_path(*where)
    if not replace and not storage.create(path, published.raw):
        return None
    if replace:
        storage.write(path, published.raw)
    signature_path = layout.profile_signature_path(*where)
    if signing_key is not None:
        comment = f"edgefolio model:{profile.model} revision:{profile.revision} profile:{profile.class_name}"
        storage.write(signature_path, signing_key.sign(published.raw, comment=comment))
    else:
        storage.delete(signature_path)  # that of the profile before says nothing of this one
    return published


def delete_profiles(repository: Repository, model: str, *, of: Callable[[int], bool] = lambda _revision: True) -> None:
    """Remove the profiles of the revisions ``of`` names, also remains of one whose manifest is gone."""
    storage = repository.storage
    for name in storage.names(layout.revisions_folder(model)):
        number = layout.number_of(name, layout.PROFILES_SUFFIX)
        if number is None or not of(number):
            continue
        folder = layout.profiles_folder(model, number)
        for entry in storage.names(folder):
            if layout.class_in(entry.removesuffix(layout.SIGNATURE_SUFFIX)) is not None:
                storage.delete(f"{folder}/{entry}")
