"""The scenarios that all hosts run, compiled as C and as C++, natively and under valgrind."""

import fcntl
import os
import shutil
from pathlib import Path

import pytest
from real_parts import Proxy, from_environment, new_postgres

from conftest import COMPILERS, SCENARIOS, Compile, run_silently

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
    pipes = proxy.pipes()
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


@pytest.fixture(scope="session")
def compile_cache(compiled: Compile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with the component as compiled for valgrind's CPU, which has fewer features than the machine's.

    The compilation takes minutes under memcheck, and a fraction of it without a tool. It happens once per machine.
    """
    assert shutil.which("valgrind"), "valgrind is missing; run `make setup-valgrind`"
    folder = Path(from_environment("BOUNDARY_USAGE_TEST_TARGET")) / "valgrind-cache"
    folder.mkdir(parents=True, exist_ok=True)
    database = tmp_path_factory.mktemp("compile") / "usage.db"
    environment = {name: value for name, value in os.environ.items() if name != "CACHE_DIRECTORY"}
    environment["XDG_CACHE_HOME"] = str(folder)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run_silently("valgrind", "--tool=none", "--quiet", compiled("arguments"), f"sqlite:{database}", env=environment)
    return folder


@pytest.fixture
def valgrind(monkeypatch: pytest.MonkeyPatch, compile_cache: Path) -> list[str]:
    """Returns the command of valgrind."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(compile_cache))
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    leaks = ["--leak-check=full", "--errors-for-leak-kinds=definite,possible", "--show-leak-kinds=definite,possible"]
    # Valgrind runs one thread at a time. Without fair scheduling, some threads wait for seconds.
    return ["valgrind", "--quiet", "--fair-sched=yes", "--error-exitcode=99", "--num-callers=40", *leaks]


def test_scenarios_under_valgrind(compiled: Compile, valgrind: list[str], url: str) -> None:
    run_scenarios([*valgrind, str(compiled("scenario"))], url, *WITHOUT_FAULTS)


def test_scenarios_with_faults_under_valgrind(compiled: Compile, valgrind: list[str]) -> None:
    run_with_faults([*valgrind, str(compiled("scenario"))], *WITH_FAULTS)


def test_wrong_arguments_under_valgrind(compiled: Compile, valgrind: list[str], url: str) -> None:
    run_silently(*valgrind, compiled("arguments"), url)


def test_threads_under_valgrind(compiled: Compile, valgrind: list[str], url: str, tmp_path: Path) -> None:
    run_silently(*valgrind, compiled("threads"), url, "5", tmp_path / "replaced.db")
