"""The scenarios that all hosts run, compiled as C and as C++, natively and under valgrind."""

import shutil
from pathlib import Path

import pytest

from conftest import COMPILERS, SCENARIOS, SOURCES, Compile, Proxy, from_environment, new_postgres, run_silently

ALL = sorted(SCENARIOS.glob("*.txt"))
WITH_FAULTS = [path for path in ALL if "\nfail " in path.read_text()]
WITHOUT_FAULTS = [path for path in ALL if path not in WITH_FAULTS]


def stem(path: Path) -> str:
    return path.stem


def run_scenarios(command: list[str], url: str, *scenarios: Path) -> None:
    run_silently(*command, url, url, "-1", "-1", *scenarios)


def run_with_faults(command: list[str], *scenarios: Path) -> None:
    """Runs scenarios whose faults are cuts of the connection to PostgreSQL."""
    proxy = Proxy(new_postgres())
    assert proxy.process.stdin is not None and proxy.process.stdout is not None
    pipes = [proxy.process.stdin.fileno(), proxy.process.stdout.fileno()]
    run_silently(*command, proxy.url, proxy.behind, *map(str, pipes), *scenarios, pass_fds=pipes)
    proxy.close()


def test_there_are_scenarios_of_both_kinds() -> None:
    assert len(WITH_FAULTS) >= 4
    assert len(WITHOUT_FAULTS) >= 10


@pytest.mark.parametrize("scenario", WITHOUT_FAULTS, ids=stem)
@pytest.mark.parametrize("language", COMPILERS)
def test_scenario(compiled: Compile, url: str, language: str, scenario: Path) -> None:
    run_scenarios([str(compiled("scenario", language))], url, scenario)


@pytest.mark.parametrize("scenario", WITH_FAULTS, ids=stem)
@pytest.mark.parametrize("language", COMPILERS)
def test_scenario_with_faults(compiled: Compile, language: str, scenario: Path) -> None:
    run_with_faults([str(compiled("scenario", language))], scenario)


@pytest.fixture
def valgrind(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns the command of valgrind, with a compile cache that outlives the tests.

    The compilation of the component takes minutes under valgrind. Its CPU has fewer features, so it has its own cache.
    """
    assert shutil.which("valgrind"), "valgrind is missing; run `make setup-valgrind`"
    monkeypatch.setenv("XDG_CACHE_HOME", f"{from_environment('BOUNDARY_USAGE_TEST_TARGET')}/valgrind-cache")
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    leaks = ["--leak-check=full", "--errors-for-leak-kinds=definite,possible", "--show-leak-kinds=definite,possible"]
    suppressed = f"--suppressions={SOURCES / 'valgrind.supp'}"
    return ["valgrind", "--quiet", "--error-exitcode=99", "--num-callers=40", suppressed, *leaks]


def test_scenarios_under_valgrind(compiled: Compile, valgrind: list[str], url: str) -> None:
    run_scenarios([*valgrind, str(compiled("scenario"))], url, *WITHOUT_FAULTS)


def test_scenarios_with_faults_under_valgrind(compiled: Compile, valgrind: list[str]) -> None:
    run_with_faults([*valgrind, str(compiled("scenario"))], *WITH_FAULTS)


def test_wrong_arguments_under_valgrind(compiled: Compile, valgrind: list[str], url: str) -> None:
    run_silently(*valgrind, compiled("arguments"), url)


def test_threads_under_valgrind(compiled: Compile, valgrind: list[str], url: str, tmp_path: Path) -> None:
    run_silently(*valgrind, compiled("threads"), url, "5", tmp_path / "replaced.db")
