"""Replicas of the Rust host and of this host share one database."""

import json
import threading
from pathlib import Path
from uuid import UUID

from real_parts import Program
from scenario import uuid

from boundary_usage import Tracker, connect

ACTIVITIES = 2_000


def recording(path: Path) -> Path:
    """Writes the activity of the Rust replica: 700 workspaces and 300 users.

    The Python replica also has 200 of these workspaces and 100 of these users.
    """
    lines = (
        {"workspace": str(UUID(int=1 + n % 700)), "owner": str(UUID(int=1 + n % 300)), "allowed": 2, "denied": 1}
        for n in range(ACTIVITIES)
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_rust_and_python_replicas_share_a_database_with_exact_totals(postgres_url: str, tmp_path: Path) -> None:
    program = Program(postgres_url)
    rust = program.start("replay", str(recording(tmp_path / "activity.jsonl")), "--flush-every", "100")
    database = connect(postgres_url)
    with Tracker(uuid("r2"), database, flush_interval=None) as tracker:
        for number in range(ACTIVITIES):
            # 500 workspaces and 200 users, from 501 and 201.
            workspace, owner = UUID(int=501 + number % 500), UUID(int=201 + number % 200)
            tracker.track(workspace, owner, 3, 1)
            if number % 100 == 0:
                tracker.flush()
    assert rust.wait() == 0
    rows = program.json("status")["rows"]
    assert len(rows) == 2
    assert summary(program.json("collect")) == (1_000, 400, 5 * ACTIVITIES, 2 * ACTIVITIES)
    database.close()


def test_concurrent_collections_of_the_rust_host_count_every_request_once(postgres_url: str, tmp_path: Path) -> None:
    program = Program(postgres_url)
    rust = program.start("replay", str(recording(tmp_path / "activity.jsonl")), "--flush-every", "20")
    database = connect(postgres_url)
    done = threading.Event()

    def track() -> None:
        try:
            with Tracker(uuid("r2"), database, flush_interval=0.001) as tracker:
                for number in range(ACTIVITIES):
                    tracker.track(UUID(int=1 + number % 50), UUID(int=1), 3, 1)
                    if number % 20 == 0:
                        tracker.flush()
        finally:
            done.set()

    thread = threading.Thread(target=track)
    thread.start()
    collected = [program.json("collect")]
    while not done.is_set() or rust.poll() is None:
        collected.append(program.json("collect"))
    thread.join()
    assert rust.returncode == 0
    collected.append(program.json("collect"))
    assert sum(one["allowed_requests"] for one in collected) == 5 * ACTIVITIES
    assert sum(one["denied_requests"] for one in collected) == 2 * ACTIVITIES
    database.close()


def test_a_replica_can_move_between_hosts(url: str, tmp_path: Path) -> None:
    program, replica = Program(url), uuid("r1")
    database = connect(url)
    with Tracker(replica, database, flush_interval=None) as tracker:
        tracker.track(uuid("w1"), uuid("u1"), 1, 0)
    path = tmp_path / "activity.jsonl"
    path.write_text(
        json.dumps({"workspace": str(uuid("w2")), "owner": str(uuid("u1")), "allowed": 1, "denied": 0}) + "\n"
    )
    assert program.json("replay", str(path), "--replica", str(replica))["flushes"] == 1
    with Tracker(replica, database, flush_interval=None) as tracker:
        tracker.track(uuid("w3"), uuid("u1"), 1, 0)
    assert [row["last_flush"] for row in program.json("status")["replicas"]] == [3]
    assert summary(program.json("collect")) == (3, 1, 3, 0)
    database.close()


def summary(collected: dict[str, int]) -> tuple[int, int, int, int]:
    """Returns the four numbers of a summary."""
    return (
        collected["unique_workspaces"],
        collected["unique_users"],
        collected["allowed_requests"],
        collected["denied_requests"],
    )
