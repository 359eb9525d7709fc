"""Support for the tests of the C library: compiled programs and their processes.

`make test-c` installs the library, and passes its folder in the environment.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from real_parts import Program, from_environment, until

SOURCES = Path(__file__).parent
SCENARIOS = SOURCES.parents[3] / "tests" / "scenarios"
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
# C99 has no POSIX functions without this definition, and g++ defines it.
COMPILERS = {"c99": ["gcc", "-std=c99", "-D_GNU_SOURCE"], "c++17": ["g++", "-x", "c++", "-std=c++17"]}


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


def allowed_requests(url: str) -> int:
    """Returns the allowed requests of the open period."""
    return int(Program(url).json("status")["so_far"]["allowed_requests"])


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
