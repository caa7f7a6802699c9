"""Credentials in URIs of objects that are stored already: they reach no manifest, report, log line or message."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from draft_manifests import DIGEST, draft_manifest, draft_variant

from edgefolio.contract.job_report import FailureReport
from edgefolio.contract.log_format import JsonLines, log_line
from edgefolio.contract.making_key import making_specification
from edgefolio.errors import IntegrityError, UserError
from edgefolio.manifest import DataDigests
from edgefolio.specification.resource import ModelPortfolio
from edgefolio.uris import redacted, redacted_document
from edgefolio_edge.agent.records.event_log import Reporter
from edgefolio_pruner.html_report import render_report

SECRETS = (
    "https://user:hunter2@host/data.npz",
    "s3://AKIA:hunter2@bucket/data.npz",
    "https://host/data.npz?X-Amz-Signature=hunter2&X-Amz-Credential=hunter2",
    "https://account.blob.example/data.npz?sv=1&sig=hunter2",
    "https://host/data.npz?a=1&token=hunter2#access_token=hunter2",
)


def stored(uri: str) -> ModelPortfolio:
    return ModelPortfolio.model_validate(
        {
            "apiVersion": "edgefolio.dev/v1alpha1",
            "kind": "ModelPortfolio",
            "metadata": {"name": "x"},
            "spec": {
                "source": {"architecture": {"library": "edgefolio", "name": "cnn"}, "weightsURI": uri},
                "data": {"trainingURI": uri, "testURI": uri},
                "methods": {"sparseTraining": {}},
                "repository": {"uri": "s3://bucket/portfolios"},
                "serving": {"modelName": "x"},
            },
        }
    )


@pytest.mark.parametrize("uri", SECRETS)
def test_a_manifest_and_its_report_hold_no_credentials(uri: str) -> None:
    specification = making_specification(stored(uri).spec)
    assert "hunter2" not in json.dumps(specification)
    assert specification["data"]["trainingURI"].partition("?")[0].endswith("/data.npz")
    # One that a version before published.
    data = DataDigests(
        training_uri=uri,
        training_sha256=DIGEST,
        validation_sha256=DIGEST,
        test_sha256=DIGEST,
        training_samples=1,
        validation_samples=1,
        test_samples=1,
    )
    older = draft_manifest(
        [draft_variant("dense", 1, b"x")],
        model="x",
        data=data,
        specification={"data": {"trainingURI": uri, "l": [uri]}},
    )
    assert "hunter2" not in render_report(older)


@pytest.mark.parametrize("uri", SECRETS)
def test_no_message_holds_credentials(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ConnectionError(f"GET {uri}: 403, see '{uri}'")
    except ConnectionError as error:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed: %s", (uri,), sys.exc_info())
        texts = [JsonLines().format(record), FailureReport.of(error).to_message()]
    texts += [
        log_line({"message": uri, "facts": {"uri": [uri]}}),
        str(UserError(uri, field=uri, value=uri, remedy=uri)),
        str(UserError("p", field="f", value={"uri": [uri]}, remedy="r")),
        str(IntegrityError(uri, location=uri, remedy=uri)),
    ]
    for as_json in (False, True):
        Reporter(as_json=as_json).event("sync", f"reading {uri}", location=uri)
    texts.append(capsys.readouterr().out)
    for text in texts:
        assert "hunter2" not in text
        assert "host" in text or "bucket" in text or "account" in text


def test_json_stays_json_whatever_is_redacted() -> None:
    for uri in SECRETS:
        for text in (f'say "{uri}"', f"{uri}\\", f"{uri}\n{uri}", f"<{uri}>"):
            assert "hunter2" not in json.loads(log_line({"message": text}))["message"]


@pytest.mark.parametrize(
    "text", ["a." * 300_000, "?" + "token" * 100_000, "://" * 200_000, "?token" * 100_000, "https://" + "a@" * 200_000]
)
def test_redaction_of_any_text_ends(text: str) -> None:
    # In the square of their length these would take hours.
    assert "://" in redacted(f"{text}://")


def test_documents_keep_their_form() -> None:
    document: dict[str, Any] = {"a": [1, None, True, 1.5, {"b": "https://u:p@h/"}], "c": "x"}
    assert redacted_document(document) == {"a": [1, None, True, 1.5, {"b": "https://***@h/"}], "c": "x"}
