"""Options of a stranger's script: numbers of any height in the place of factors, rates and amounts of memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from drafts import publish_draft

from edgefolio.commands.main import main

PORTFOLIO = """
apiVersion: edgefolio.dev/v1alpha1
kind: ModelPortfolio
metadata: {name: x}
spec: {repository: {uri: ./r}, serving: {modelName: m}, objectives: {latencyP95Milliseconds: 20, maxMemory: 999999Ti}}
"""
NUMBERS = ("0", "1e-320", "5e-324", "1e-6", "1", "1e9", "1e15", "1e308", "inf", "nan", "-1")
AMOUNTS = ("0", "1.5", "999999999999T", "9" * 13, "1e9", "-1", "٣", "1Mi\n", "")


@pytest.mark.parametrize(
    ("option", "value"),
    [(option, number) for option in ("--cpu-factor", "--rate", "--transport") for number in NUMBERS]
    + [("--memory", amount) for amount in AMOUNTS],
)
def test_a_choice_is_explained_in_finite_numbers_or_the_option_is_named(
    option: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    publish_draft("r", tmp_path / "files", model="m")
    Path("p.yaml").write_text(PORTFOLIO)
    with pytest.raises(SystemExit) as ended:
        main(["explain", "-f", "p.yaml", "--json", f"{option}={value}"])
    said = capsys.readouterr()
    if ended.value.code == 2:
        assert f"field:  {option}" in said.err
        assert said.out == ""
    else:
        assert ended.value.code == 0
        assert json.loads(said.out, parse_constant=pytest.fail)["variants"]
