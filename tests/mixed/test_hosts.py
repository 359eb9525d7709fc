"""One replica of each host on one PostgreSQL database, with collections in the middle.

`make test-hosts` builds the replicas of C, Go, Python and Node.js beside this file. They do what `replay` of the Rust
host does: they read activities from stdin, flush after a number of them, and shut down at the end of stdin.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from uuid import UUID

import pytest
from boundary_usage import connect
from real_parts import LIMIT, Program, from_environment, totals, until

FOLDER = Path(__file__).parent
BUILT = Path(from_environment("BOUNDARY_USAGE_TEST_REPLICAS"))
FLUSH_EVERY = 20

COMMANDS = {
    "c": [str(BUILT / "replica-c")],
    "go": [str(BUILT / "replica-go")],
    "python": [sys.executable, str(FOLDER / "replica.py")],
    "node": [str(FOLDER.parents[1] / "host/node/node_modules/.bin/node"), str(FOLDER / "replica.mjs")],
}
HOSTS = ["rust", *COMMANDS]


class Deployment:
    """Replicas of all hosts on one database."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._program = Program(url)
        self._replicas: list[subprocess.Popen[str]] = []

    def start(self, inputs: dict[str, Path] | None = None) -> None:
        """Starts a replica of each host, which reads a file or else a pipe."""
        for number, host in enumerate(HOSTS, 1):
            replica = str(UUID(int=number))
            if host == "rust":
                options = ["--database", self._url, "--replica", replica, "--flush-every", str(FLUSH_EVERY)]
                command = [from_environment("BOUNDARY_USAGE_TEST_PROGRAM"), "replay", "-", *options]
            else:
                command = [*COMMANDS[host], self._url, replica, str(FLUSH_EVERY)]
            source: int | IO[str] = inputs[host].open() if inputs else subprocess.PIPE
            self._replicas.append(subprocess.Popen(command, stdin=source, stdout=subprocess.DEVNULL, text=True))

    def send(self, host: str, lines: list[str]) -> None:
        """Sends activities to the replica of a host."""
        pipe = self._replicas[HOSTS.index(host)].stdin
        assert pipe is not None
        pipe.writelines(lines)
        pipe.flush()

    def until(self, condition: Callable[[list[int]], bool]) -> None:
        """Waits until a condition on the number of each replica's last flush is true."""
        until(lambda: condition([replica["last_flush"] for replica in self.status()["replicas"]]))

    def is_running(self) -> bool:
        """Returns whether a replica runs."""
        return any(replica.poll() is None for replica in self._replicas)

    def stop(self) -> None:
        """Ends the input of all replicas, and waits for them."""
        for replica in self._replicas:
            if replica.stdin is not None:
                replica.stdin.close()
        assert [replica.wait(LIMIT) for replica in self._replicas] == [0] * len(HOSTS)

    def kill(self) -> None:
        """Ends the replicas that a failed test has left."""
        for replica in self._replicas:
            replica.kill()

    def status(self) -> Any:
        """Returns the status of the deployment."""
        return self._program.json("status")

    def collect(self) -> tuple[int, ...]:
        """Closes the period; returns workspaces, users, allowed and denied requests."""
        return totals(self._url)


@pytest.fixture
def deployment(postgres_url: str) -> Iterator[Deployment]:
    """Creates a database for replicas of all hosts."""
    # Creates the tables, which the commands `status` and `collect` need.
    connect(postgres_url).close()
    deployment = Deployment(postgres_url)
    yield deployment
    deployment.kill()


def activities(host: str, count: int, offset: int) -> list[str]:
    """Returns activities of 200 workspaces and 100 users. Half of both belong to the next host, too."""
    first = HOSTS.index(host)
    activities = (
        {
            "workspace": str(UUID(int=1 + offset + 100 * first + n % 200)),
            "owner": str(UUID(int=1 + offset + 50 * first + n % 100)),
            "allowed": 3,
            "denied": first,
        }
        for n in range(count)
    )
    return [json.dumps(activity, separators=(",", ":")) + "\n" for activity in activities]


def test_a_collection_in_the_middle_splits_exact_totals_and_uniques(deployment: Deployment) -> None:
    deployment.start()
    # The second period has new ids and some of the first one.
    for period, offset in enumerate([0, 300], 1):
        for host in HOSTS:
            deployment.send(host, activities(host, 200, offset))
        expected = [period * 200 // FLUSH_EVERY] * len(HOSTS)
        deployment.until(lambda flushes, expected=expected: flushes == expected)
        assert len(deployment.status()["rows"]) == len(HOSTS)
        assert deployment.collect() == (600, 300, 5 * 200 * 3, 200 * (1 + 2 + 3 + 4))
    deployment.stop()
    assert deployment.collect() == (0, 0, 0, 0)


def test_collections_during_flushes_count_every_request_once(deployment: Deployment, tmp_path: Path) -> None:
    inputs = {host: tmp_path / host for host in HOSTS}
    for host, path in inputs.items():
        path.write_text("".join(activities(host, 2_000, 0)))
    deployment.start(inputs)
    deployment.until(lambda flushes: sum(flushes) > 0)
    collected = [deployment.collect()]
    while deployment.is_running():
        collected.append(deployment.collect())
    deployment.stop()
    collected.append(deployment.collect())
    periods = [summary for summary in collected if summary[2] > 0]
    assert len(periods) > 1, collected
    assert sum(summary[2] for summary in periods) == 5 * 2_000 * 3
    assert sum(summary[3] for summary in periods) == 2_000 * (1 + 2 + 3 + 4)
