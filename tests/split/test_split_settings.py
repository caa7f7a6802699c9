"""``methods.split`` in the resource: what is refused, and that a portfolio without it is as it was."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from edgefolio.contract.making_key import making_key, making_specification
from edgefolio.contract.work_pieces import pieces_of
from edgefolio.crd.schema import structural_schema
from edgefolio.specification import Methods, PortfolioSpecification, Selection


def split(**fields: Any) -> Any:
    return Methods.model_validate({"split": [{"name": "two"} | fields]}).split[0]


def test_defaults() -> None:
    entry = split()
    assert (entry.workers, entry.shares, entry.layout, entry.wire) == (2, (50, 50), "Auto", "UInt8")
    assert (entry.most_waits, entry.max_accuracy_loss_points) == (None, "1.0")
    assert (entry.link.bits_per_second, entry.link.round_trip_milliseconds) == (1e9, "0.3")
    assert split(workers=3).shares == (34, 33, 33)
    assert split(exchanges=3).most_waits == 3
    assert split(exchanges="16").most_waits == 16
    assert Selection().max_splits == 2


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"name": "Two"}, "name"),
        ({"name": ""}, "name"),
        ({"workers": 1}, "workers"),
        ({"workers": 9}, "workers"),
        ({"sharesPercent": [60, 60]}, "sharesPercent"),
        ({"sharesPercent": [100, 0]}, "sharesPercent"),
        ({"sharesPercent": [100]}, "sharesPercent"),
        ({"workers": 3, "sharesPercent": [50, 50]}, "sharesPercent"),
        ({"layout": "Columns"}, "layout"),
        ({"exchanges": 17}, "exchanges"),
        ({"exchanges": -1}, "exchanges"),
        ({"exchanges": "some"}, "exchanges"),
        ({"exchanges": 1.5}, "exchanges"),
        ({"exchanges": True}, "exchanges"),
        ({"wire": "Int4"}, "wire"),
        ({"maxAccuracyLossPoints": "-1"}, "maxAccuracyLossPoints"),
        ({"link": {"bandwidth": "0G"}}, "bandwidth"),
        ({"link": {"bandwidth": "0.000G"}}, "bandwidth"),
        ({"link": {"bandwidth": "1T"}}, "bandwidth"),
        ({"link": {"bandwidth": "fast"}}, "bandwidth"),
        ({"link": {"roundTripMilliseconds": "-1"}}, "roundTripMilliseconds"),
        ({"fineTuneEpochs": -1}, "fineTuneEpochs"),
        ({"fineTuneEpochs": 101}, "fineTuneEpochs"),
        ({"layout": "Rows", "fineTuneEpochs": 1}, "fineTuneEpochs"),
        ({"more": 1}, "more"),
    ],
)
def test_what_is_refused_names_its_field(fields: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as error:
        split(**fields)
    assert place in str(error.value)


@pytest.mark.parametrize("bandwidth", ["1G", "0.5M", "100K", "999999999G", "0.001K", "2.125G"])
def test_bandwidths(bandwidth: str) -> None:
    assert split(link={"bandwidth": bandwidth}).link.bits_per_second > 0


def test_two_entries_of_one_name_and_a_fifth_are_refused() -> None:
    with pytest.raises(ValidationError, match="holds a name twice"):
        Methods.model_validate({"split": [{"name": "two"}, {"name": "two", "workers": 3}]})
    with pytest.raises(ValidationError, match="at most 4"):
        Methods.model_validate({"split": [{"name": f"s{number}"} for number in range(5)]})


def specification(**methods: Any) -> PortfolioSpecification:
    return PortfolioSpecification.model_validate(
        {
            "source": {"architecture": {"library": "edgefolio", "name": "cnn"}},
            "data": {"trainingURI": "builtin:digits"},
            "methods": {"sparseTraining": {}} | methods,
            "repository": {"uri": "./portfolios"},
            "serving": {"modelName": "digits"},
        }
    )


def test_a_portfolio_without_splits_keeps_its_key_and_what_its_manifest_records() -> None:
    # The key of the release before, whose specification knew no splits.
    assert making_key(specification()) == "5c77a1fbabc9c2df"
    recorded = making_specification(specification())
    assert set(recorded["methods"]) == {"sparseTraining", "quantization"}
    assert "maxSplits" not in recorded["selection"]
    assert making_key(specification(split=[])) == making_key(specification())


def test_a_split_is_part_of_the_key_and_of_the_record_and_can_be_repeated() -> None:
    spec = specification(split=[{"name": "two", "exchanges": 2}])
    assert making_key(spec) != making_key(specification())
    recorded = making_specification(spec)
    assert recorded["methods"]["split"][0]["exchanges"] == "2"
    assert Methods.model_validate(recorded["methods"]) == spec.methods


def test_each_entry_is_a_piece_after_all_others() -> None:
    methods = Methods.model_validate({"oneShot": {"macsPercent": [50]}, "split": [{"name": "two"}, {"name": "b"}]})
    assert pieces_of(methods) == ("oneshot-50", "split-two", "split-b")


def test_the_definition_takes_a_number_of_exchanges_and_no_default_that_older_objects_lack() -> None:
    entry = structural_schema(Methods)["properties"]["split"]
    exchanges = entry["items"]["properties"]["exchanges"]
    assert exchanges["x-kubernetes-int-or-string"]
    assert (exchanges["minimum"], exchanges["maximum"]) == (0, 16)
    assert "default" not in entry
    assert "default" not in structural_schema(Selection)["properties"]["maxSplits"]


QUANTIZED = {"split": [{"name": "two", "precision": "Int8"}], "quantization": {"precision": "Int8"}}


def test_a_quantized_split_needs_quantized_models_of_one_node_to_compare_with() -> None:
    methods = Methods.model_validate({"oneShot": {}} | QUANTIZED)
    assert methods.split[0].precision == "Int8"
    with pytest.raises(ValidationError, match="split two: precision Int8 needs quantization"):
        Methods.model_validate({"oneShot": {}, "split": QUANTIZED["split"]})
    # Of a float split nothing is said of precision: keys and manifests of before stay.
    assert "precision" not in split().model_dump(mode="json", by_alias=True)
    with pytest.raises(ValidationError, match="precision"):
        split(precision="Int4")
