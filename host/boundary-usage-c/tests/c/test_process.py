"""What the library does to the process around it: signals, streams, forks, threads and descriptors."""

import os
from pathlib import Path

import pytest

from conftest import COMPILERS, Compile, run_silently


@pytest.mark.parametrize("language", COMPILERS)
def test_wrong_arguments_return_a_status(compiled: Compile, language: str, url: str) -> None:
    run_silently(compiled("arguments", language), url)


def test_a_forked_child_cannot_use_its_parents_tracker_and_does_not_hang(compiled: Compile, url: str) -> None:
    run_silently(compiled("fork"), url, "300")


def test_signals_and_the_umask_are_left_alone(compiled: Compile, url: str) -> None:
    run_silently(compiled("signals"), url)


def test_threads_descriptors_and_memory_are_those_of_the_header(compiled: Compile, tmp_path: Path, url: str) -> None:
    environment = os.environ | {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
    run_silently(compiled("resources"), url, tmp_path / "state", "40", env=environment)


@pytest.mark.parametrize("shortage", ["threads", "descriptors"])
def test_a_shortage_is_an_error_of_the_call(compiled: Compile, tmp_path: Path, shortage: str, url: str) -> None:
    run_silently(compiled("shortages"), shortage, url, tmp_path / "state")


@pytest.mark.parametrize("language", COMPILERS)
def test_many_threads_use_a_tracker(compiled: Compile, language: str, url: str, tmp_path: Path) -> None:
    run_silently(compiled("threads", language), url, "300", tmp_path / "replaced.db")
