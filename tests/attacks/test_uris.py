"""URIs: what can name no place is refused; credentials are refused where users write, redacted where they are read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefolio.contract.pod import path_in_pod
from edgefolio.errors import IntegrityError, UserError
from edgefolio.repository.storage import checked_argument, open_storage
from edgefolio.specification.loading import load_portfolio, load_stored_portfolio
from edgefolio.uris import problem_in_uri, redacted, secret_in_uri

SECRETS = [
    "https://user:hunter2@models.example/p",
    "https://hunter2@models.example/p",
    "s3://AKIAhunter2:hunter2@bucket/p",
    "https://b.s3.amazonaws.com/w?X-Amz-Algorithm=AWS4&X-Amz-Credential=hunter2%2F2026&X-Amz-Signature=hunter2",
    "https://b.s3.amazonaws.com/w?AWSAccessKeyId=hunter2&Signature=hunter2&Expires=1",
    "https://storage.googleapis.com/b/o?GoogleAccessId=hunter2&Signature=hunter2",
    "https://storage.googleapis.com/b/o?X-Goog-Signature=hunter2",
    "https://a.blob.core.windows.net/c/b?sv=2024&sig=hunter2",
    "https://models.example/w?token=hunter2",
    "https://models.example/w?ACCESS_TOKEN=hunter2",
    "https://models.example/w?a=1;private_token=hunter2",
    "https://models.example/w?%74oken=hunter2",
    "https://models.example/w?api_key=hunter2",
    "https://models.example/w#access_token=hunter2",
    "https://models.example/w?password=hunter2",
    "https://models.example/w?key=hunter2",
]
UNSAFE = [
    "simplecache::https://models.example/p",
    "https://models.example/p::file:///etc/passwd",
    "filecache::s3://bucket/p",
    "zip://a::s3://bucket/p",
    "s3://bucket/a\nb",
    "s3://bucket/\x1b[31m",
    "s3://bucket/a\x00",
    "s3://bucket/\u202egnp",
    "s3://bucket/../other",
    "pvc://claim/../../etc/passwd",
    "pvc://claim/a/..",
    "https://models.example/%2e%2e/x",
    "file://server/share/x",
    "file://../x",
    "file:///srv/../etc",
    "s3:///x",
    "https:///x",
]
SOUND = [
    "s3://bucket/prefix",
    "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/name/prefix",
    "s3://bucket/key?versionId=abc",
    "https://models.example:8443/a..b/c?version=2&expires=1",
    "https://[2001:db8::1]:8443/models",
    "https://models.example/user@host/model.onnx",
    "pvc://claim/models",
    "file:///srv/models",
    "file://localhost/srv/models",
    "/srv/my models",
    "../models",
    "~/models",
    "builtin:digits",
]


@pytest.mark.parametrize("uri", SECRETS)
def test_credentials_are_found_and_hidden(uri: str) -> None:
    found = secret_in_uri(uri)
    assert found is not None
    assert "secretRef" in found.remedy
    assert problem_in_uri(uri) is None
    if "%74" not in uri:
        assert "hunter2" not in redacted(f"GET {uri}: 403, see {uri}")
    for field in ("--repository", "URI"):
        with pytest.raises(UserError, match="everybody would read") as caught:
            checked_argument(uri, field=field)
        assert caught.value.field == field
        assert "hunter2" not in str(caught.value) or "%74" in uri


@pytest.mark.parametrize("uri", UNSAFE)
def test_what_names_no_place_is_refused_whoever_wrote_it(uri: str) -> None:
    assert problem_in_uri(uri) is not None
    with pytest.raises(UserError) as caught:
        open_storage(uri, field="spec.repository.uri")
    assert caught.value.field == "spec.repository.uri"


@pytest.mark.parametrize("uri", SOUND)
def test_sound_uris_are_left_alone(uri: str) -> None:
    assert problem_in_uri(uri) is None
    assert secret_in_uri(uri) is None
    assert redacted(uri) == uri


@given(user=st.text("abcXYZ019%-_.~!$&()*+,;=:", min_size=1), host=st.sampled_from(["h", "h:1", "[::1]"]))
def test_no_user_info_gets_through(user: str, host: str) -> None:
    uri = f"https://{user}s3cr3t@{host}/p"
    assert secret_in_uri(uri) is not None
    assert "s3cr3t" not in redacted(f"x {uri} y {uri}")


def test_every_error_hides_credentials() -> None:
    uri = SECRETS[0]
    for error in (
        UserError(f"cannot read {uri}.", field="f", value=uri, remedy=f"Look at {uri}."),
        IntegrityError(f"{uri} is bad.", location=uri),
    ):
        assert "hunter2" not in str(error)
        assert "hunter2" not in repr(vars(error))


PORTFOLIO = """
apiVersion: edgefolio.dev/v1alpha1
kind: ModelPortfolio
metadata: {{name: digits}}
spec:
  source: {{architecture: {{library: timm, name: resnet18}}, weightsURI: "{weights}"}}
  data: {{trainingURI: "{training}", validationURI: "{validation}", testURI: "{test}"}}
  methods: {{oneShot: {{}}}}
  repository: {{uri: "{repository}"}}
  serving: {{modelName: digits}}
  job: {{workDirectory: {{uri: "{work}"}}}}
"""
FIELDS = {
    "weights": "spec.source.weightsURI",
    "training": "spec.data.trainingURI",
    "validation": "spec.data.validationURI",
    "test": "spec.data.testURI",
    "repository": "spec.repository.uri",
    "work": "spec.job.workDirectory.uri",
}


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("uri", ["s3://me:hunter2@bucket/p", "s3://bucket/p?token=hunter2", "s3://bucket/../p"])
def test_a_file_is_refused_by_field_and_a_stored_object_is_read(tmp_path: Path, name: str, uri: str) -> None:
    path = tmp_path / "portfolio.yaml"
    sound = dict.fromkeys(FIELDS, "s3://bucket/p")
    path.write_text(PORTFOLIO.format(**sound))
    load_portfolio(path)
    path.write_text(PORTFOLIO.format(**{**sound, name: uri}))
    with pytest.raises(UserError) as caught:
        load_portfolio(path)
    assert caught.value.field == FIELDS[name]
    assert "hunter2" not in str(caught.value)
    load_stored_portfolio(path)


@pytest.mark.parametrize("uri", ["pvc://claim/../../etc/passwd", "pvc://claim/a/../../b", "pvc://claim/.."])
def test_a_claim_is_never_left(uri: str) -> None:
    place = path_in_pod(uri)
    assert place.startswith("/claims/claim/") or place == "/claims/claim"
    assert ".." not in place.split("/")
