"""The real parts of the tests in Python: databases, the Rust program, and a proxy that cuts connections.

It is a plugin of pytest. The targets of `make` build the programs, start a PostgreSQL server, and pass both in the
environment.
"""

import itertools
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

# The limit of every wait, in seconds. It only ends a test that has failed.
LIMIT = 60

_numbers = itertools.count()


def from_environment(name: str) -> str:
    """Returns a variable that `make` sets."""
    value = os.environ.get(name)
    assert value, f"{name} is not set; run the tests with `make`, which lists its targets"
    return value


def until(condition: Callable[[], Any], what: str = "the condition") -> Any:
    """Waits until a condition is true; returns its value."""
    deadline = time.monotonic() + LIMIT
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {LIMIT} s: {what}"
        time.sleep(0.01)
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


def query(url: str, statement: str) -> Any:
    """Runs a statement on PostgreSQL, in a transaction of its own; returns the first value, or None."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]


def new_postgres() -> str:
    """Creates a database; returns its URL."""
    server = from_environment("BOUNDARY_USAGE_TEST_POSTGRES")
    name = f"pytest_{os.getpid()}_{next(_numbers)}"
    query(server, f"CREATE DATABASE {name}")
    return server.rpartition("/")[0] + "/" + name


class Proxy:
    """The program `postgres-proxy`, which refuses and cuts connections to a database on command."""

    def __init__(self, url: str) -> None:
        command = [from_environment("BOUNDARY_USAGE_TEST_POSTGRES_PROXY"), url]
        # Without a buffer, because a program in C may use the pipes in between.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert process.stdin is not None and process.stdout is not None
        self._process, self._commands, self._replies = process, process.stdin, process.stdout
        self.url = self._line()
        self.behind = url

    def run(self, command: str) -> str:
        """Sends a command; returns its output."""
        self._commands.write(f"{command}\n".encode())
        return self._line()

    def pipes(self) -> list[int]:
        """Returns the file descriptors of the commands and of their output."""
        return [self._commands.fileno(), self._replies.fileno()]

    def close(self) -> None:
        """Ends the program."""
        self._commands.close()
        self._process.wait()
        self._replies.close()

    def _line(self) -> str:
        return self._replies.readline().decode().strip()


@pytest.fixture
def primary_and_standby() -> Iterator[list[str]]:
    """Starts a PostgreSQL server and its hot standby; returns their URLs."""
    command = [from_environment("BOUNDARY_USAGE_TEST_POSTGRES_STANDBY")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as servers:
        assert servers.stdin is not None and servers.stdout is not None
        yield [servers.stdout.readline().strip() for _ in range(2)]
        servers.stdin.close()


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[Proxy]:
    """Starts a proxy in front of an empty PostgreSQL database."""
    proxy = Proxy(postgres_url)
    yield proxy
    proxy.close()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Returns the URL of an empty database of each kind."""
    return new_postgres() if request.param == "postgres" else f"sqlite:{tmp_path / 'usage.db'}"


@pytest.fixture
def postgres_url() -> str:
    """Returns the URL of an empty PostgreSQL database."""
    return new_postgres()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Returns the URL of a missing SQLite file."""
    return f"sqlite:{tmp_path / 'usage.db'}"
