"""The scenarios that every host passes, on each kind of database."""

from pathlib import Path

import pytest
from scenario import FOLDER, Scenario

SCENARIOS = sorted(FOLDER.glob("*.txt"))


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 17


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_holds(path: Path, url: str) -> None:
    Scenario(url).run(path.read_text())
