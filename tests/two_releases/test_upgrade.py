"""An upgrade with the programs of two releases: nothing is lost or doubled, and the old one never starts again.

`make test-upgrade` calls it with the old program, the new program, and a PostgreSQL server.
"""

import json
import os
import re
import socket
import sqlite3
import subprocess
import tempfile
import threading
import unittest
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from uuid import uuid4

from machine import FRAMES, LIMIT, OWNER, await_condition, expected, numbers

OLD = os.environ["OLD"]
NEW = os.environ["BOUNDARY_USAGE_TEST_PROGRAM"]
POSTGRES = os.environ["BOUNDARY_USAGE_TEST_POSTGRES"]
WORKSPACE = "6b1f7a52-3f6e-4e0c-9d3b-0d7c5a1e2f00"
REFUSED = r"the database's schema has version \d+, and this release supports \d+; use a newer release"


class Replica:
    """A running `serve`."""

    def __init__(self, command: list[str], path: Path, environment: dict[str, str]) -> None:
        """Start the command, and wait until clients can connect to the socket at the path."""
        self._socket = path
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment)
        await_condition("the replica is ready", lambda: "listening on" in self._read_log())

    def _read_log(self) -> str:
        assert self._process.poll() is None, self.log()
        return self.log()

    def log(self) -> str:
        """Return the log."""
        # The process writes at the end of the file, and a read there must not move this place.
        return os.pread(self._log.fileno(), 1 << 20, 0).decode()

    def send(self, sessions: int = 1) -> None:
        """Send the recorded session this many times, and wait until the replica has read it."""
        for _ in range(sessions):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(LIMIT)
                client.connect(str(self._socket))
                client.sendall(FRAMES.read_bytes())
                client.shutdown(socket.SHUT_WR)
                assert client.recv(1) == b"", "the replica never writes"

    def tracker(self) -> dict[str, Any]:
        """Return the status of the replica's tracker."""
        [address] = re.findall(r"HTTP on (http://[0-9.:]+)", self.log())
        with urlopen(f"{address}/status.json", timeout=LIMIT) as status:
            return json.load(status)["tracker"]

    def await_checkpoint(self) -> None:
        """Wait until the checkpoint has everything that was sent so far."""
        await_condition("the component has tracked it", lambda: self.tracker()["waiting_activities"] == 0)
        tracked = datetime.now(UTC)
        await_condition(
            "the checkpoint is new",
            lambda: datetime.fromisoformat(self.tracker()["checkpoint"]["complete_at"]) > tracked,
        )

    def stop(self) -> dict[str, Any]:
        """Stop the replica in order, and return its report."""
        self._process.terminate()
        report, _ = self._process.communicate(timeout=LIMIT)
        assert self._process.returncode == 0, self.log()
        self._log.close()
        return json.loads(report)

    def kill(self) -> None:
        """End the process immediately."""
        self._process.kill()
        self._process.wait(LIMIT)
        self._process.stdout.close()
        self._log.close()


class Deployment:
    """A database, and a folder for the sockets and the state of its replicas."""

    def __init__(self, folder: Path, url: str) -> None:
        """Use an empty database."""
        self.folder, self.url = folder, url
        self._environment = os.environ | {"BOUNDARY_USAGE_DATABASE": url}
        self._replicas: list[Replica] = []

    def serve_command(self, program: str, name: str, *options: str) -> list[str]:
        """Return the command of a replica. Replicas of one name have one state directory."""
        command = [program, "serve", "--format=json", f"--socket={self.folder}/{name}.sock", "--listen=127.0.0.1:0"]
        command += [f"--workspace={WORKSPACE}", f"--owner={OWNER}", f"--state-dir={self.folder}/{name}.state"]
        return [*command, "--checkpoint-interval=50ms", *options]

    def serve(self, program: str, name: str, *options: str) -> Replica:
        """Start a replica."""
        command = self.serve_command(program, name, *options)
        replica = Replica(command, self.folder / f"{name}.sock", self._environment)
        self._replicas.append(replica)
        return replica

    def end(self) -> None:
        """End the replicas that a failed test has left."""
        for replica in self._replicas:
            replica.kill()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=LIMIT)

    def json(self, *command: str) -> dict[str, Any]:
        """Run a command that must succeed, and return the JSON that it prints."""
        ended = self.run(*command, "--format=json")
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    def dump(self) -> str:
        """Return the content of the database."""
        if self.url.startswith("sqlite:"):
            with closing(sqlite3.connect(self.url.removeprefix("sqlite:"))) as database:
                return "\n".join(database.iterdump())
        dump = self.run("pg_dump", self.url)
        assert dump.returncode == 0, dump.stderr
        # Each dump has another random key in its commands for psql.
        return "\n".join(line for line in dump.stdout.splitlines() if not line.startswith("\\"))

    def cut_connections(self) -> None:
        """Cut all connections to PostgreSQL. SQLite has none."""
        if self.url.startswith("postgres:"):
            cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            others = "datname = current_database() AND pid <> pg_backend_pid()"
            ended = self.run("psql", f"--command={cut} WHERE {others}", self.url)
            assert ended.returncode == 0, ended.stderr

    def state(self, name: str) -> dict[str, bytes]:
        """Return the files in the state directory of a replica."""
        return {path.name: path.read_bytes() for path in (self.folder / f"{name}.state").iterdir()}


def deployments() -> Iterator[Deployment]:
    """Yield a deployment on each database."""
    with tempfile.TemporaryDirectory() as folder:
        yield Deployment(Path(folder), f"sqlite:{folder}/usage.db")
    with tempfile.TemporaryDirectory() as folder:
        name = f"upgrade_{uuid4().hex}"
        subprocess.run(["psql", "--quiet", f"--command=CREATE DATABASE {name}", POSTGRES], check=True)
        yield Deployment(Path(folder), f"{POSTGRES.rpartition('/')[0]}/{name}")


class Upgrade(unittest.TestCase):
    """The table "What may run together" of docs/upgrading.md."""

    def on_each_database(self, scenario: Callable[[Deployment], None]) -> None:
        """Run a scenario on SQLite and on PostgreSQL."""
        for deployment in deployments():
            with self.subTest(url=deployment.url):
                try:
                    scenario(deployment)
                finally:
                    deployment.end()

    def test_a_running_old_replica_loses_and_doubles_nothing_during_and_after_the_migration(self) -> None:
        self.on_each_database(self.migrate_beside_a_running_replica)

    def migrate_beside_a_running_replica(self, deployment: Deployment) -> None:
        # The old replica collects, too, before and after the migration.
        old = deployment.serve(OLD, "old", "--flush-interval=20ms", "--collect-interval=1s")
        old.send()
        await_condition("the old replica has flushed", lambda: deployment.json(OLD, "status")["replicas"])
        outdated = deployment.run(NEW, "status")
        self.assertIn("lacks the versions", outdated.stderr, "OLD has the schema of this release")
        self.assertEqual(1, outdated.returncode)

        sent, stopped = [1], threading.Event()

        def send_until_stopped() -> None:
            while not stopped.is_set():
                old.send()
                sent[0] += 1

        def await_sessions(more: int) -> None:
            enough = sent[0] + more
            await_condition("the client has sent more", lambda: sent[0] >= enough or not client.is_alive())

        client = threading.Thread(target=send_until_stopped, daemon=True)
        client.start()
        await_sessions(5)
        collected = 0
        for _ in range(3):
            # The first collection migrates.
            collected += deployment.json(NEW, "collect")["allowed_requests"]
            await_sessions(5)
        deployment.cut_connections()
        new = deployment.serve(NEW, "new", "--flush-interval=20ms", "--no-collect")
        new.send(2)
        closed = len(deployment.json(NEW, "status", "--all")["periods"])
        await_condition(
            "the old replica collects after the migration",
            lambda: len(deployment.json(NEW, "status", "--all")["periods"]) > closed,
        )
        stopped.set()
        client.join()
        self.assertGreater(collected, 0)
        new.stop()
        old.stop()
        deployment.json(NEW, "collect")
        periods = deployment.json(NEW, "status", "--all")["periods"]
        total = [sum(period[name] for period in periods) for name in ("allowed_requests", "denied_requests")]
        self.assertEqual(expected(sent[0] + 2)[2:], total)
        for period in periods:
            self.assertIn(numbers(period)[:2], ([1, 1], [0, 0]))
        deployment.json(NEW, "check")

    def test_the_old_release_is_refused_on_the_new_schema_and_changes_nothing(self) -> None:
        self.on_each_database(self.start_the_old_release_on_the_new_schema)

    def start_the_old_release_on_the_new_schema(self, deployment: Deployment) -> None:
        old = deployment.serve(OLD, "old", "--flush-interval=1h", "--no-collect")
        old.send()
        old.await_checkpoint()
        old.kill()
        new = deployment.serve(NEW, "new", "--no-collect")
        new.send()
        new.stop()
        before = deployment.dump(), deployment.state("old")
        serve = deployment.serve_command(OLD, "old", "--no-collect")
        for command in ([OLD, "status"], [OLD, "report"], [OLD, "collect"], serve):
            ended = deployment.run(*command)
            self.assertEqual((1, ""), (ended.returncode, ended.stdout), command)
            self.assertRegex(ended.stderr, REFUSED)
        self.assertEqual(before, (deployment.dump(), deployment.state("old")))

    def test_the_new_release_continues_the_checkpoint_of_a_killed_old_one(self) -> None:
        self.on_each_database(lambda deployment: self.continue_a_checkpoint(deployment, migrate_first=False))
        self.on_each_database(lambda deployment: self.continue_a_checkpoint(deployment, migrate_first=True))

    def continue_a_checkpoint(self, deployment: Deployment, migrate_first: bool) -> None:
        old = deployment.serve(OLD, "replica", "--flush-interval=1h", "--no-collect")
        old.send(2)
        old.stop()
        old = deployment.serve(OLD, "replica", "--flush-interval=1h", "--no-collect")
        old.send(3)
        if migrate_first:
            self.assertEqual(expected(2), numbers(deployment.json(NEW, "collect")))
        old.await_checkpoint()
        self.assertGreater(old.tracker()["pending_activities"], 0)
        old.kill()

        new = deployment.serve(NEW, "replica", "--flush-interval=1h", "--no-collect")
        new.send(1)
        self.assertTrue(new.stop()["checkpoint"]["restored"])
        sessions = 3 + 1 if migrate_first else 2 + 3 + 1
        self.assertEqual(expected(sessions), numbers(deployment.json(NEW, "collect")))
        self.assertEqual(expected(0, 0)[2:], numbers(deployment.json(NEW, "collect"))[2:])


if __name__ == "__main__":
    unittest.main()
