"""Every host passes the same scenarios, on each kind of database."""

from pathlib import Path

import pytest
from scenario import FOLDER, Scenario

SCENARIOS = sorted(FOLDER.glob("*.txt"))


def test_the_folder_has_scenarios() -> None:
    assert len(SCENARIOS) >= 17


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_passes(path: Path, url: str) -> None:
    Scenario(url).run(path.read_text())
