"""Signed revisions: with a verification key nothing else is read, whoever can write to the repository."""

from __future__ import annotations

import json
import stat

import minisign
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from edgefolio.commands.main import build_app
from edgefolio.errors import IntegrityError, UserError
from edgefolio.repository import Publication, Repository, layout
from edgefolio.repository.removal import remove_model
from edgefolio.repository.signature import (
    KEY_VARIABLE,
    PASSWORD_VARIABLE,
    SigningKey,
    VerificationKey,
    key_from_option,
    new_key_pair,
    publisher_key,
)
from edgefolio_edge.check import look


def key_pair() -> tuple[SigningKey, VerificationKey]:
    secret, public = new_key_pair()
    return SigningKey.parse(secret, field="key"), VerificationKey.parse(public.decode(), field="key")


@pytest.fixture
def keys():
    return key_pair()


@pytest.fixture
def signed(uri, make_draft, keys):
    """A repository with one signed revision, and the draft it was published from."""
    draft = make_draft()
    Publication.open(uri).publish(draft.manifest, draft.files, history_limit=3, signing_key=keys[0])
    return uri, draft


def read(uri, key):
    return Repository.open(uri, verification_key=key).current_manifest("digits")[1]


def test_a_signed_revision_is_read_with_its_key_and_without_one(signed, keys):
    uri, _ = signed
    assert read(uri, keys[1]) == read(uri, None)


def test_publishing_the_same_again_writes_nothing(signed, keys):
    uri, draft = signed
    again = Publication.open(uri).publish(draft.manifest, draft.files, history_limit=3, signing_key=keys[0])
    assert again.already_published


def test_publishing_again_signs_what_was_not_signed(uri, make_draft, keys):
    draft = make_draft()
    Publication.open(uri).publish(draft.manifest, draft.files, history_limit=3)
    with pytest.raises(IntegrityError, match="is not signed"):
        read(uri, keys[1])
    again = Publication.open(uri).publish(draft.manifest, draft.files, history_limit=3, signing_key=keys[0])
    assert again.manifest.revision == 1
    assert read(uri, keys[1]).revision == 1


def test_another_publisher_is_refused(signed, make_draft, keys):
    uri, _ = signed
    other = make_draft("other")
    Publication.open(uri).publish(other.manifest, other.files, history_limit=3, signing_key=key_pair()[0])
    with pytest.raises(IntegrityError, match="signature does not verify with the key RW"):
        read(uri, keys[1])
    assert read(uri, None).revision == 2


@pytest.mark.parametrize("change", ["removed", "of another revision", "other manifest", "copied number", "huge"])
def test_a_writer_of_the_bucket_cannot_make_readers_take_anything(signed, make_draft, keys, change):
    uri, _ = signed
    second = make_draft("second")
    Publication.open(uri).publish(second.manifest, second.files, history_limit=3, signing_key=keys[0])
    storage = Repository.open(uri).storage
    signature, manifest = layout.signature_path("digits", 2), layout.manifest_path("digits", 2)
    raw = storage.read(manifest, maximum_bytes=10**6)
    if change == "removed":
        storage.delete(signature)
    elif change == "of another revision":
        first = storage.read(layout.signature_path("digits", 1), maximum_bytes=10**6)
        storage.write(signature, first)
    elif change == "other manifest":
        storage.write(manifest, raw.replace(b'"seed": 0', b'"seed": 1'))
    elif change == "copied number":
        # Replay: an older, signed manifest under the number of a newer one.
        storage.write(manifest, storage.read(layout.manifest_path("digits", 1), maximum_bytes=10**6))
        storage.write(signature, storage.read(layout.signature_path("digits", 1), maximum_bytes=10**6))
    else:
        storage.write(signature, storage.read(signature, maximum_bytes=10**6) + b"x" * 10_000)
    with pytest.raises(IntegrityError):
        Repository.open(uri, verification_key=keys[1]).manifest("digits", 2)
    assert Repository.open(uri, verification_key=keys[1]).manifest("digits", 1).revision == 1


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_changed_byte_of_manifest_or_signature_passes(keys, data):
    manifest = b'{"model": "digits", "revision": 3}'
    signature = keys[0].sign(manifest, comment="edgefolio model:digits revision:3")
    keys[1].require(manifest, signature, location="here")
    of = data.draw(st.sampled_from(["manifest", "signature"]))
    raw = bytearray(manifest if of == "manifest" else signature)
    # The first line of a signature is a comment that nobody signs.
    first = 0 if of == "manifest" else signature.index(b"\n") + 1
    position = data.draw(st.integers(first, len(raw) - 2))
    raw[position] ^= data.draw(st.integers(1, 255))
    # Another kind of line break, or a bit of base64 that stands for nothing: the signature is the same.
    assume(of == "manifest" or not _is_same(bytes(raw), signature))
    changed = (bytes(raw), signature) if of == "manifest" else (manifest, bytes(raw))
    with pytest.raises(IntegrityError):
        keys[1].require(changed[0], changed[1], location="here")


def _is_same(changed: bytes, signature: bytes) -> bool:
    try:
        found = minisign.Signature.from_bytes(changed)
    except minisign.Error:
        return False
    return bytes(found).splitlines()[1:] == signature.splitlines()[1:]


@given(st.one_of(st.text(max_size=100), st.from_regex(r"RW[A-Za-z0-9+/]{54}", fullmatch=True)))
def test_any_text_is_a_key_or_the_users_error(text):
    try:
        key = VerificationKey.parse(text, field="key")
    except UserError:
        return
    with pytest.raises(IntegrityError):
        key.require(b"manifest", new_key_pair()[0], location="here")


def test_the_check_of_a_followed_repository_takes_signed_revisions_alone(signed, make_draft, keys):
    uri, _ = signed
    assert look(uri, "digits", verification_key=keys[1]).kind == "Published"
    other = make_draft("other")
    Publication.open(uri).publish(other.manifest, other.files, history_limit=3)
    report = look(uri, "digits", verification_key=keys[1])
    assert (report.kind, "is not signed" in report.problem) == ("Refused", True)
    pinned = look(uri, "digits", revision=2, verification_key=keys[1])
    assert pinned.kind == "Refused"
    assert look(uri, "digits", revision=1, verification_key=keys[1]).kind == "Published"


def test_signatures_go_with_their_revisions(uri, make_draft, keys):
    for text in ("one", "two", "three"):
        draft = make_draft(text)
        Publication.open(uri).publish(draft.manifest, draft.files, history_limit=2, signing_key=keys[0])
    repository = Repository.open(uri)

    def signatures() -> list[str]:
        return [name for name in repository.storage.names("revisions/digits") if name.endswith(".minisig")]

    assert signatures() == ["2.json.minisig", "3.json.minisig"]
    remove_model(repository, "digits")
    assert signatures() == []


def test_keygen_writes_a_pair_that_is_never_overwritten(tmp_path):
    app = build_app()
    name = str(tmp_path / "release")
    result = CliRunner().invoke(app, ["keygen", name])
    assert result.exit_code == 0, result.output
    public = (tmp_path / "release.pub").read_text()
    assert VerificationKey.parse(public, field="key").text in result.output
    assert stat.S_IMODE((tmp_path / "release.key").stat().st_mode) == 0o600
    again = CliRunner().invoke(app, ["keygen", name])
    assert again.exit_code == 2
    assert (tmp_path / "release.pub").read_text() == public


def test_a_making_signs_with_the_key_that_readers_ask_for(tmp_path, monkeypatch, keys):
    secret, public = new_key_pair()
    wanted = VerificationKey.parse(public.decode(), field="key").text
    path = tmp_path / "release.key"
    path.write_bytes(secret)
    assert publisher_key(None, verification_key=None) is None
    for file, environment in ((path, None), (None, secret.decode())):
        if environment is not None:
            monkeypatch.setenv(KEY_VARIABLE, environment)
        key = publisher_key(file, verification_key=wanted)
        assert key is not None
        assert key.verification_key.text == wanted
        with pytest.raises(UserError, match="the signing key belongs to RW"):
            publisher_key(file, verification_key=keys[1].text)
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(UserError, match="no signing key was given"):
        publisher_key(None, verification_key=wanted)
    with pytest.raises(UserError, match="cannot be read"):
        publisher_key(tmp_path / "absent", verification_key=None)
    path.write_bytes(public)
    with pytest.raises(UserError) as refused:
        publisher_key(path, verification_key=None)
    assert refused.value.field == "--sign"


def test_an_encrypted_key_needs_its_password_and_no_error_shows_the_key(tmp_path, monkeypatch):
    pair = minisign.KeyPair.generate()
    public = pair.public_key.to_base64().decode()
    pair.secret_key.encrypt("right", opslimit=minisign.OPSLIMIT // 32, memlimit=minisign.MEMLIMIT // 32)
    path = tmp_path / "release.key"
    path.write_bytes(bytes(pair.secret_key))
    secret = path.read_text().splitlines()[1]
    for password in (None, "wrong"):
        if password is not None:
            monkeypatch.setenv(PASSWORD_VARIABLE, password)
        with pytest.raises(UserError) as refused:
            publisher_key(path, verification_key=None)
        assert secret[:20] not in refused.value.one_line()
    monkeypatch.setenv(PASSWORD_VARIABLE, "right")
    assert publisher_key(path, verification_key=public) is not None


def test_verify_asks_for_the_signature(signed, keys, make_draft, tmp_path):
    uri, _ = signed
    (tmp_path / "release.pub").write_text(keys[1].text + "\n")
    other = key_pair()[1].text
    for key, problems in ((keys[1].text, False), (str(tmp_path / "release.pub"), False), (other, True)):
        result = CliRunner().invoke(build_app(), ["verify", uri, "--verification-key", key, "--json"])
        findings = [finding["problem"] for finding in json.loads(result.stdout)["findings"]]
        assert any("signature" in problem for problem in findings) == problems


def test_an_option_that_can_be_no_file_is_refused_as_a_key(tmp_path):
    (tmp_path / "binary.pub").write_bytes(b"\xff" * 100_000)
    loop = tmp_path / "loop.pub"
    loop.symlink_to(loop)
    for value in (
        "R" * 300,
        "R" * 100_000,
        "a/" * 2000,
        "RW\0",
        str(tmp_path / "binary.pub"),
        str(loop),
        str(tmp_path),
    ):
        with pytest.raises(UserError, match="--verification-key"):
            key_from_option(value)
