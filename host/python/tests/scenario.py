"""A runner of the scenarios in `tests/scenarios`, which all hosts run.

`tests/src/scenario.rs` describes the lines. This host flushes, and injects the faults. The program of the Rust host
runs `collect` and `rows` on the same database.
"""

import threading
from pathlib import Path
from uuid import UUID

from faults import Faults
from real_parts import Program

from boundary_usage import BoundaryUsageError, Confirmed, Idle, Tracker, Written, connect

FOLDER = Path(__file__).parents[3] / "tests" / "scenarios"


class Scenario:
    """The replicas of one scenario, on their own database."""

    def __init__(self, url: str) -> None:
        self._faults = Faults(connect(url))
        self._program = Program(url)
        self._trackers: dict[str, Tracker] = {}

    def run(self, text: str) -> None:
        """Runs every line. The error of a failed line names it."""
        for number, line in enumerate(text.splitlines(), 1):
            if line and not line.startswith("#"):
                try:
                    self._step(line.split())
                except Exception as error:
                    raise AssertionError(f"line {number}: {line}: {error}") from error
        assert not self._faults.queued, "a fault did not strike"
        for tracker in self._trackers.values():
            tracker.shutdown()
        self._faults.close()

    def _step(self, words: list[str]) -> None:
        match words:
            case ["track", replica, workspace, user, allowed, denied]:
                self._tracker(replica).track(uuid(workspace), uuid(user), int(allowed), int(denied))
            case ["threads", replica, threads, times, allowed, denied]:
                tracker = self._tracker(replica)
                track_from_threads(tracker, int(threads), int(times), int(allowed), int(denied))
            case ["beside", replica, count, allowed, denied]:
                track_beside_flushes(self._tracker(replica), int(count), int(allowed), int(denied))
            case ["flush", replica, "=>", expected]:
                outcome = flush(self._tracker(replica))
                assert expected in ("any", outcome), outcome
            case ["fail", step]:
                self._faults.queued.append(step)
            case ["restart", replica]:
                self._trackers.pop(replica).shutdown()
            case ["collect", "=>", *expected]:
                summary = self._program.json("collect")
                numbers = ["unique_workspaces", "unique_users", "allowed_requests", "denied_requests"]
                collected = [f"{letter}{summary[name]}" for letter, name in zip("WUAD", numbers, strict=True)]
                assert collected == expected, collected
            case ["rows", "=>", expected]:
                found = len(self._program.json("status")["rows"])
                assert found == int(expected), found
            case _:
                raise AssertionError("unknown line")

    def _tracker(self, replica: str) -> Tracker:
        if replica not in self._trackers:
            self._trackers[replica] = Tracker(uuid(replica), self._faults, flush_interval=None)
        return self._trackers[replica]


def flush(tracker: Tracker) -> str:
    """Flushes; returns the outcome as scenarios name it."""
    try:
        match tracker.flush():
            case Idle():
                return "idle"
            case Confirmed():
                return "confirmed"
            case Written():
                return "written"
    except BoundaryUsageError:
        return "error"


def track_from_threads(tracker: Tracker, threads: int, times: int, allowed: int, denied: int) -> None:
    """Tracks from several threads simultaneously, each with its own ids."""

    def track(number: int) -> None:
        for _ in range(times):
            tracker.track(UUID(int=number), UUID(int=number), allowed, denied)

    run_all([threading.Thread(target=track, args=[number]) for number in range(1, threads + 1)])


def track_beside_flushes(tracker: Tracker, count: int, allowed: int, denied: int) -> None:
    """Tracks while flushes run."""

    def track() -> None:
        for number in range(1, count + 1):
            tracker.track(UUID(int=number), UUID(int=number), allowed, denied)

    def flush_all() -> None:
        for _ in range(count):
            tracker.flush()

    run_all([threading.Thread(target=track), threading.Thread(target=flush_all)])


def run_all(threads: list[threading.Thread]) -> None:
    """Starts all threads and waits for them."""
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def uuid(name: str) -> UUID:
    """Returns the UUID of a name such as `w7`.

    Its first byte is the letter, its last bytes are the number.
    """
    return UUID(int=ord(name[0]) << 120 | int(name[1:]))
