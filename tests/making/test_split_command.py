"""``edgefolio split`` as a user calls it: plans, figures, a verdict, and how it refuses bad input."""

from __future__ import annotations

import pytest

from edgefolio.commands.splits import parse_link
from edgefolio.errors import UserError
from edgefolio_pruner.cli.split import parse_shares


@pytest.fixture(scope="module")
def planned(made, edgefolio):
    published = sorted(path for path in made.repository.rglob("*") if path.is_file())
    options = ("--link", "1G,0.01ms", "--fine-tune-epochs", "1", "--json")
    found = edgefolio("split", "-f", "portfolio.yaml", "--work-dir", "work", *options, cwd=made.folder)
    assert found.code in (0, 3), found.stderr
    # Nothing is published.
    assert published == sorted(path for path in made.repository.rglob("*") if path.is_file())
    return found


def test_plans_are_measured_and_compared_with_the_models_of_one_node(planned):
    document = planned.document
    assert 0 < len(document["plans"]) <= 6
    assert {single["name"] for single in document["singleNode"]} >= {"dense", "sparse-1", "oneshot-40"}
    dense = document["singleNode"][0]
    most = document["dense"]["bytesOfFloat32Exchange"] / 4
    for plan in document["plans"]:
        if plan["layout"] == "Rows":
            # Rows lose nothing, and leave every weight with every worker.
            assert plan["validationAccuracyPercent"] == pytest.approx(dense["validationAccuracyPercent"], abs=0.5)
            assert plan["parametersOfLargest"] == document["dense"]["parameters"]
        else:
            assert (plan["layout"] == "RowsThenChannels") == (plan["rowsUntil"] is not None)
            assert plan["parametersOfLargest"] < document["dense"]["parameters"]
        if plan["layout"] == "Channels":
            assert plan["bytesIntoAll"] <= plan["keep"] * most + 1
        assert plan["macsOfBusiest"] <= document["dense"]["macs"]
        # No plan of the table is beaten by another in all of what counts.
        for other in document["plans"]:
            figures = [
                (-each["validationAccuracyPercent"], each["predictedMilliseconds"], each["parametersOfLargest"])
                for each in (plan, other)
            ]
            assert figures[0] == figures[1] or any(mine < its for mine, its in zip(*figures, strict=True))
        assert 0 < plan["computeMilliseconds"] < plan["ownMilliseconds"]
        assert plan["predictedMilliseconds"] > plan["computeMilliseconds"]
        assert plan["certificate"]["samples"] > 0
        single = next(each for each in document["singleNode"] if each["name"] == plan["fastestSingleNode"])
        faster = plan["predictedMilliseconds"] < single["p50Milliseconds"]
        assert plan["pays"] == (faster and plan["accurateEnough"])
    assert planned.code == (0 if any(plan["pays"] for plan in document["plans"]) else 3)
    assert document["verdict"].startswith("It pays" if planned.code == 0 else "It does not pay")


def test_a_slow_link_does_not_pay(made, edgefolio):
    found = edgefolio(
        "split", "-f", "portfolio.yaml", "--work-dir", "work", "--layout", "Rows", "--link", "1K,900ms", cwd=made.folder
    )
    assert found.code == 3, found.stderr
    assert "It does not pay" in found.stdout


def test_more_workers_than_a_layer_has_channels_is_refused(made, edgefolio, portfolio_file):
    def narrow(document):
        document["spec"]["source"]["architecture"]["options"]["width"] = 4

    path = portfolio_file(narrow)
    found = edgefolio("split", "-f", path, "--workers", "5", cwd=made.folder)
    assert found.code == 2
    assert "--workers" in found.stderr
    assert "Give at most 4 workers" in found.stderr


@pytest.mark.parametrize("text", ["", "0G", "1T", "1G,3", "-1G", "1G,0.3s", "fast", "1G,0.3ms,2", "0.000G"])
def test_links_that_are_none(text):
    with pytest.raises(UserError) as error:
        parse_link(text)
    assert error.value.field == "--link"


def test_links():
    assert parse_link("1G,0.3ms").bits_per_second == 1e9
    assert parse_link("20M,5ms").round_trip_milliseconds == 5
    assert parse_link("100K").round_trip_milliseconds == 0.3


@pytest.mark.parametrize("text", ["60", "60,30", "60,40,0", "100,0", "a,b", "50,50,", "50.5,49.5"])
def test_shares_that_are_none(text):
    with pytest.raises(UserError) as error:
        parse_shares(text, 2)
    assert error.value.field == "--shares"


def test_shares():
    assert parse_shares(None, 3) == (34, 33, 33)
    assert parse_shares("70,30", 2) == (70, 30)
