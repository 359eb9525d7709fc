"""The equipment of the tests: databases of their own, and the program of the Rust host.

`make test-python` runs them with a PostgreSQL server and the program, which it names in the environment.
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


def equipment(name: str) -> str:
    """What `make test-python` provides."""
    value = os.environ.get(name)
    assert value, f"{name} is not set; run `make test-python`, which starts what the tests need"
    return value


class Program:
    """The program `boundary-usage`, on one database."""

    def __init__(self, url: str) -> None:
        self._environment = os.environ | {"BOUNDARY_USAGE_DATABASE": url}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts it."""
        command = [equipment("BOUNDARY_USAGE_TEST_PROGRAM"), "--format", "json", *arguments]
        return subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE, text=True)

    def json(self, *arguments: str) -> Any:
        """Runs it to its end; what it answers."""
        with self.start(*arguments) as process:
            assert process.stdout is not None
            answer = process.stdout.read()
        assert process.returncode == 0, f"{arguments} ended with {process.returncode}"
        return json.loads(answer)


def totals(url: str) -> tuple[int, ...]:
    """Closes the period: workspaces, users, requests allowed and denied."""
    summary = Program(url).json("collect")
    return tuple(summary[name] for name in ("unique_workspaces", "unique_users", "allowed_requests", "denied_requests"))


def new_postgres() -> str:
    """A new database of the tests' server."""
    server = equipment("BOUNDARY_USAGE_TEST_POSTGRES")
    name = f"python_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return server.rpartition("/")[0] + "/" + name


class Proxy:
    """A wire to PostgreSQL that breaks on cue: the program `postgres-proxy`, in front of a database."""

    def __init__(self, url: str) -> None:
        command = [equipment("BOUNDARY_USAGE_TEST_POSTGRES_PROXY"), url]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self._line()
        self.behind = url

    def run(self, command: str) -> str:
        """Runs a command of the program; returns what it prints."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._line()

    def close(self) -> None:
        """Ends it."""
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
    """A proxy in front of an empty PostgreSQL database."""
    connect(postgres_url).close()
    proxy = Proxy(postgres_url)
    yield proxy
    proxy.close()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database of either kind."""
    yield new_postgres() if request.param == "postgres" else f"sqlite:{tmp_path / 'usage.db'}"


@pytest.fixture
def postgres_url() -> str:
    """The URL of an empty PostgreSQL database."""
    return new_postgres()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite file that does not exist yet."""
    return f"sqlite:{tmp_path / 'usage.db'}"
