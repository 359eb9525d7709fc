"""Support for the tests: their own databases, and the program of the Rust host.

`make test-python` starts a PostgreSQL server, builds the programs, and passes them in the environment.
"""

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from boundary_usage import connect

_numbers = itertools.count()


def from_environment(name: str) -> str:
    """Returns a variable that `make test-python` sets."""
    value = os.environ.get(name)
    assert value, f"{name} is not set; run the tests with `make test-python`"
    return value


class Program:
    """The program `boundary-usage`, on one database."""

    def __init__(self, url: str) -> None:
        self._environment = os.environ | {"BOUNDARY_USAGE_DATABASE": url}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts the program."""
        command = [from_environment("BOUNDARY_USAGE_TEST_PROGRAM"), "--format", "json", *arguments]
        return subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE, text=True)

    def json(self, *arguments: str) -> Any:
        """Runs the program; returns its output."""
        with self.start(*arguments) as process:
            assert process.stdout is not None
            output = process.stdout.read()
        assert process.returncode == 0, f"{arguments} ended with {process.returncode}"
        return json.loads(output)


def totals(url: str) -> tuple[int, ...]:
    """Closes the period; returns workspaces, users, allowed and denied requests."""
    summary = Program(url).json("collect")
    return tuple(summary[name] for name in ("unique_workspaces", "unique_users", "allowed_requests", "denied_requests"))


def new_postgres() -> str:
    """Creates a database; returns its URL."""
    server = from_environment("BOUNDARY_USAGE_TEST_POSTGRES")
    name = f"python_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return server.rpartition("/")[0] + "/" + name


class Proxy:
    """The program `postgres-proxy`, which cuts connections to a database on command."""

    def __init__(self, url: str) -> None:
        command = [from_environment("BOUNDARY_USAGE_TEST_POSTGRES_PROXY"), url]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self._line()
        self.behind = url

    def run(self, command: str) -> str:
        """Sends a command; returns its output."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._line()

    def close(self) -> None:
        """Ends the program."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[Proxy]:
    """Starts a proxy in front of an empty PostgreSQL database."""
    connect(postgres_url).close()
    proxy = Proxy(postgres_url)
    yield proxy
    proxy.close()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Returns the URL of an empty database of each kind."""
    yield new_postgres() if request.param == "postgres" else f"sqlite:{tmp_path / 'usage.db'}"


@pytest.fixture
def postgres_url() -> str:
    """Returns the URL of an empty PostgreSQL database."""
    return new_postgres()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Returns the URL of a missing SQLite file."""
    return f"sqlite:{tmp_path / 'usage.db'}"
