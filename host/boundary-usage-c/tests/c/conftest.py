"""Support for the tests of the C library: compiled programs, databases and processes.

`make test-c` installs the library, starts a PostgreSQL server, and passes both in the environment.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

SOURCES = Path(__file__).parent
SCENARIOS = SOURCES.parents[3] / "tests" / "scenarios"
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
# C99 has no POSIX functions without this definition, and g++ defines it.
COMPILERS = {"c99": ["gcc", "-std=c99", "-D_GNU_SOURCE"], "c++17": ["g++", "-x", "c++", "-std=c++17"]}

_numbers = itertools.count()


def from_environment(name: str) -> str:
    """Returns a variable that `make test-c` sets."""
    value = os.environ.get(name)
    assert value, f"{name} is not set; run the tests with `make test-c`"
    return value


def pkg_config(*arguments: str) -> list[str]:
    """Returns the words that `pkg-config` prints for the installed library."""
    folder = Path(from_environment("BOUNDARY_USAGE_TEST_C")) / "lib" / "pkgconfig"
    environment = os.environ | {"PKG_CONFIG_PATH": str(folder)}
    command = ["pkg-config", *arguments, "boundary_usage"]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.split()


def library_folder() -> str:
    """Returns the folder of the installed libraries."""
    return pkg_config("--variable=libdir")[0]


Compile = Callable[..., Path]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Returns a function that compiles a program once for a language, with further flags."""
    folder = tmp_path_factory.mktemp("programs")
    programs: dict[tuple[str, ...], Path] = {}

    def compile_once(name: str, language: str = "c99", *flags: str) -> Path:
        key = (name, language, *flags)
        if key not in programs:
            program = folder / f"{name}-{len(programs)}"
            libraries = [*pkg_config("--cflags", "--libs"), f"-Wl,-rpath,{library_folder()}", "-lpthread"]
            command = [*COMPILERS[language], *WARNINGS, "-g", "-O1", *flags, "-o", str(program)]
            subprocess.run([*command, str(SOURCES / f"{name}.c"), "-x", "none", *libraries], check=True)
            programs[key] = program
        return programs[key]

    return compile_once


def run_silently(*command: str | Path, seconds: int = 1800, **options: Any) -> None:
    """Runs a program that must succeed without a byte on its standard streams."""
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, **options)
    output = (ended.stdout + ended.stderr).decode()
    assert (ended.returncode, output) == (0, ""), f"{command} ended with {ended.returncode}:\n{output}"


def program_json(url: str, *arguments: str) -> Any:
    """Runs the program of the Rust host on a database; returns its output."""
    command = [from_environment("BOUNDARY_USAGE_TEST_PROGRAM"), "--format", "json", *arguments]
    environment = os.environ | {"BOUNDARY_USAGE_DATABASE": url}
    return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout)


def totals(url: str) -> tuple[int, ...]:
    """Closes the period; returns workspaces, users, allowed and denied requests."""
    summary = program_json(url, "collect")
    return tuple(summary[name] for name in ("unique_workspaces", "unique_users", "allowed_requests", "denied_requests"))


def allowed_requests(url: str) -> int:
    """Returns the allowed requests of the open period."""
    return int(program_json(url, "status")["so_far"]["allowed_requests"])


def psql(url: str, statement: str) -> str:
    """Runs a statement; returns its output."""
    program = shutil.which("psql")
    assert program, "psql is missing; run `make setup`"
    command = [program, "--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "--command", statement, url]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def new_postgres() -> str:
    """Creates a database; returns its URL."""
    server = from_environment("BOUNDARY_USAGE_TEST_POSTGRES")
    name = f"c_{os.getpid()}_{next(_numbers)}"
    psql(server, f"CREATE DATABASE {name}")
    return server.rpartition("/")[0] + "/" + name


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Waits until a condition is true; returns its value."""
    limit = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < limit, "the condition has not become true in time"
        time.sleep(0.01)
    return value


class Proxy:
    """The program `postgres-proxy`, which cuts connections to a database on command."""

    def __init__(self, url: str) -> None:
        command = [from_environment("BOUNDARY_USAGE_TEST_POSTGRES_PROXY"), url]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.url = self._line()
        self.behind = url

    def run(self, command: str) -> str:
        """Sends a command; returns its output."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n".encode())
        return self._line()

    def close(self) -> None:
        """Ends the program."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """Starts a proxy in front of an empty PostgreSQL database."""
    proxy = Proxy(new_postgres())
    yield proxy
    proxy.close()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Returns the URL of an empty database of each kind."""
    return new_postgres() if request.param == "postgres" else f"sqlite:{tmp_path / 'usage.db'}"


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Returns the URL of a missing SQLite file."""
    return f"sqlite:{tmp_path / 'usage.db'}"


class Replica:
    """A process of the program `replica`, which runs commands."""

    def __init__(self, program: Path, **options: str) -> None:
        commands, self._commands = os.pipe()
        replies, writes = os.pipe()
        arguments = [str(program), str(commands), str(writes)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(arguments, pass_fds=[commands, writes], stdout=pipe, stderr=pipe)
        os.close(commands)
        os.close(writes)
        self._replies = os.fdopen(replies, encoding="utf-8")
        for name, value in options.items():
            assert self.run(f"set {name.replace('_', '-')} {value}") == (0, "")

    def send(self, command: str) -> None:
        """Sends a command without waiting for its reply."""
        os.write(self._commands, f"{command}\n".encode())

    def run(self, command: str) -> tuple[int, str]:
        """Runs a command; returns the status and its message."""
        self.send(command)
        return self.reply()

    def reply(self) -> tuple[int, str]:
        """Waits for the reply to a command."""
        status, _, message = self._line().partition(" ")
        return int(status), message

    def ok(self, *commands: str) -> None:
        """Runs commands that succeed."""
        for command in commands:
            assert self.run(command) == (0, ""), command

    def status(self) -> Any:
        """Returns the tracker's status."""
        self.send("status")
        return json.loads(self._line())

    def kill(self) -> None:
        """Kills the process."""
        self.process.kill()
        self._close(-signal.SIGKILL)

    def end(self) -> None:
        """Ends the process, which releases its tracker."""
        os.close(self._commands)
        self._close(0)

    def _line(self) -> str:
        line = self._replies.readline()
        assert line.endswith("\n"), f"the replica ended with {self.process.wait()}: {self._output()}"
        return line[:-1]

    def _output(self) -> tuple[bytes, bytes]:
        assert self.process.stdout is not None and self.process.stderr is not None
        return self.process.stdout.read(), self.process.stderr.read()

    def _close(self, status: int) -> None:
        assert (self.process.wait(60), *self._output()) == (status, b"", b"")
        self._replies.close()


Start = Callable[..., Replica]

UNAVAILABLE, COMMIT_UNKNOWN, REFUSED, COMPONENT, STATE = 4, 7, 8, 9, 10
MANUAL = {"flush_interval": "1day", "checkpoint_interval": "5ms"}


def await_checkpoint(replica: Replica) -> None:
    """Waits until the checkpoint contains all activity that was tracked before this call."""
    until(lambda: replica.status()["waiting_activities"] == 0)
    now = time.time()
    until(lambda: datetime.fromisoformat(replica.status()["checkpoint"]["complete_at"]).timestamp() > now)


@pytest.fixture
def replica(compiled: Compile) -> Iterator[Start]:
    """Returns a function that starts replicas with options. Running ones are killed after the test."""
    replicas: list[Replica] = []

    def start(**options: str) -> Replica:
        replicas.append(Replica(compiled("replica"), **options))
        return replicas[-1]

    yield start
    for started in replicas:
        started.process.kill()
        started.process.wait()
