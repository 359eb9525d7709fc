"""Load from wrk while workers are replaced, killed and upgraded. The clients' own counts are the truth."""

import os
import signal
import time
from pathlib import Path

from conftest import Nginx, children, is_running
from load import OWNERS, WORKSPACES, Load
from real_parts import totals, until

SERVER = "boundary_usage on; location = /allowed { return 200; } location = /denied { return 403; }"

CHECKPOINT_INTERVAL = 0.2

# Limits for a slow machine, in seconds: of the time that a checkpoint takes, and of the time until the tracker's thread
# records a request.
CHECKPOINT_DURATION = 2.0
RECORDING_DELAY = 0.5

SETTINGS = f"boundary_usage_flush_interval 2s; boundary_usage_checkpoint_interval {CHECKPOINT_INTERVAL * 1000:.0f}ms;"


class Kill:
    """A killed worker, and the time of its last checkpoint."""

    def __init__(self, nginx: Nginx) -> None:
        # The last line of the log names a busy worker.
        workers = nginx.running_workers()
        self.worker = until(lambda: next((pid for pid in busy(nginx) if pid in workers), None), "a busy worker")
        slot = self._slot(nginx)
        until(lambda: list(slot.glob("*.checkpoint")), "the first checkpoint")
        # The next worker must not use the slot before its file is read.
        os.kill(self.worker, signal.SIGSTOP)
        self.age = time.time() - max(file.stat().st_mtime for file in slot.glob("*.checkpoint"))
        self.checkpoint = time.time() - self.age
        os.kill(self.worker, signal.SIGKILL)

    def _slot(self, nginx: Nginx) -> Path:
        """Returns the directory whose lock the worker holds."""
        files = [Path(os.readlink(path)) for path in Path(f"/proc/{self.worker}/fd").iterdir()]
        return next(path.parent for path in files if path.is_relative_to(nginx.state) and path.name == "lock")

    def limit(self, log: list[list[str]]) -> int:
        """Returns the number of requests that the worker's last checkpoint may lack.

        One request may have a response and no line in the log.
        """
        first = self.checkpoint - RECORDING_DELAY
        return 1 + sum(int(pid) == self.worker and float(moment) >= first for moment, pid, *_ in log)


def busy(nginx: Nginx) -> list[int]:
    """Returns the workers of the last requests, the latest first."""
    with nginx.access_log.open("rb") as log:
        log.seek(-4096, os.SEEK_END)
        return [int(line.split()[1]) for line in reversed(log.read().splitlines()[1:])]


def test_killed_workers_lose_at_most_a_checkpoint_interval_and_count_nothing_twice(url: str | None) -> None:
    with Nginx(url, workers=4, http=SETTINGS, server=SERVER) as nginx:
        kills = []
        with Load(nginx.port, 200_000) as load:
            for step in range(5):
                load.wait_for((step + 1) / 6)
                if step % 2 == 0:
                    nginx.reload()
                else:
                    kills.append(Kill(nginx))
            counts = load.finish()
        nginx.stop()
        log = [line.split() for line in nginx.access_log.read_text().splitlines()]
        limit = sum(kill.limit(log) for kill in kills)
        workspaces, users, allowed, denied = totals(nginx.url)
        lost = counts["allowed"] - allowed, counts["denied"] - denied
        ages = [kill.age for kill in kills]
        print(f"completed {counts}, lost {lost} of at most {limit} requests, ages of the checkpoints {ages}")
        assert counts == {"allowed": 150_000, "denied": 50_000, "other": 0}
        assert min(lost) >= 0, "a request counted twice"
        assert sum(lost) <= limit
        assert max(ages) <= CHECKPOINT_INTERVAL + CHECKPOINT_DURATION
        assert (workspaces, users) == (WORKSPACES, OWNERS)
        # Old and new workers run simultaneously, so there are twice as many slots, and no more.
        assert len(list(nginx.state.glob("slot-*"))) <= 2 * nginx.workers + len(kills)
        assert "exited on signal 9" in nginx.errors()


def upgrade(nginx: Nginx) -> None:
    """Starts the program again, lets its workers take over, and ends the old processes."""
    old = nginx.master
    nginx.send(signal.SIGUSR2)
    new = until(lambda: nginx.pid_file.exists() and nginx.master != old and nginx.master, "the new master")
    until(lambda: len(nginx.running_workers(new)) == nginx.workers, "the new workers")
    os.kill(old, signal.SIGWINCH)
    until(lambda: not children(old) or children(old) == [new], "the end of the old workers")
    os.kill(old, signal.SIGQUIT)
    until(lambda: not is_running(old), "the end of the old master")


def test_reloads_and_binary_upgrades_lose_nothing(url: str | None) -> None:
    with Nginx(url, workers=4, http=SETTINGS, server=SERVER) as nginx:
        with Load(nginx.port, 96_000) as load:
            for step, replace in enumerate([nginx.reload, lambda: upgrade(nginx), nginx.reload]):
                load.wait_for((step + 1) / 4)
                replace()
            counts = load.finish()
        nginx.stop()
        assert counts == {"allowed": 72_000, "denied": 24_000, "other": 0}
        assert totals(nginx.url) == (WORKSPACES, OWNERS, counts["allowed"], counts["denied"])


def test_a_fast_stop_loses_no_completed_request() -> None:
    with Nginx(workers=2, http=SETTINGS, server=SERVER) as nginx:
        with Load(nginx.port, 8_000) as load:
            counts = load.finish()
        nginx.stop(signal.SIGTERM)
        assert totals(nginx.url)[2:] == (counts["allowed"], counts["denied"])
