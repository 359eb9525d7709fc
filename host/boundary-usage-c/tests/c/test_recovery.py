"""Processes that are killed, and outages of the database."""

import time
from pathlib import Path

from real_parts import Proxy, query, totals, until

from conftest import (
    COMMIT_UNKNOWN,
    MANUAL,
    STATE,
    UNAVAILABLE,
    Replica,
    Start,
    allowed_requests,
    await_checkpoint,
)


def track(replica: Replica, first: int, last: int) -> None:
    for number in range(first, last + 1):
        replica.ok(f"track w{number} u{number} 1 1")


def test_a_killed_process_loses_nothing_of_its_checkpoint(replica: Start, url: str, tmp_path: Path) -> None:
    options = {"database": url, "state_dir": str(tmp_path / "state")} | MANUAL
    first = replica(**options)
    first.ok("start")
    track(first, 1, 40)
    await_checkpoint(first)
    first.kill()
    second = replica(**options)
    second.ok("start")
    assert second.status()["checkpoint"]["restored"]
    track(second, 41, 50)
    second.ok("shutdown", "free")
    second.end()
    assert totals(url) == (50, 50, 50, 50)


def test_kills_between_flushes_lose_only_the_checkpoint_interval(replica: Start, url: str, tmp_path: Path) -> None:
    options = {"database": url, "state_dir": str(tmp_path / "state")}
    intervals = {"flush_interval": "10ms", "checkpoint_interval": "5ms"}
    kept = accepted = 0
    for round in range(8):
        killed = replica(**options, **intervals)
        killed.ok("start")
        track(killed, accepted + 1, accepted + 10)
        await_checkpoint(killed)
        kept, accepted = kept + 10, accepted + 10
        # The process is killed at another moment of these calls in each round.
        for _ in range(round * 3):
            accepted += 1
            killed.ok(f"track w{accepted} u{accepted} 1 1")
        killed.kill()
    last = replica(**options)
    last.ok("start", "shutdown")
    last.end()
    workspaces, users, allowed, denied = totals(url)
    assert workspaces == users == allowed == denied
    assert kept <= allowed <= accepted


def test_other_processes_flush_the_slot_of_a_killed_one(replica: Start, url: str, tmp_path: Path) -> None:
    options = {"database": url, "state_dir": str(tmp_path / "state"), "state_slots": "on", "checkpoint_interval": "5ms"}
    others = [replica(**options, flush_interval="1s") for _ in range(2)]
    killed = replica(**options, flush_interval="1day")
    for process in (killed, *others):
        process.ok("start")
    track(killed, 1, 10)
    await_checkpoint(killed)
    assert allowed_requests(url) == 0
    killed.kill()
    until(lambda: allowed_requests(url) == 10)
    for number, process in enumerate(others):
        first = 11 + 10 * number
        track(process, first, first + 9)
        process.ok("shutdown")
    assert sorted(path.name for path in (tmp_path / "state").glob("slot-*")) == ["slot-0", "slot-1", "slot-2"]
    assert totals(url) == (30, 30, 30, 30)
    for process in others:
        process.end()


def test_a_new_process_takes_the_slot_of_a_killed_one(replica: Start, sqlite_url: str, tmp_path: Path) -> None:
    options = {"database": sqlite_url, "state_dir": str(tmp_path / "state"), "state_slots": "on"} | MANUAL
    killed = replica(**options)
    killed.ok("start")
    track(killed, 1, 10)
    await_checkpoint(killed)
    name = killed.status()["replica"]
    killed.kill()
    successor = replica(**options)
    successor.ok("start")
    assert successor.status()["replica"] == name
    successor.ok("shutdown")
    successor.end()
    assert totals(sqlite_url) == (10, 10, 10, 10)


def test_a_second_process_on_a_state_directory_is_refused(replica: Start, sqlite_url: str, tmp_path: Path) -> None:
    options = {"database": sqlite_url, "state_dir": str(tmp_path / "state")} | MANUAL
    first, second = replica(**options), replica(**options)
    first.ok("start")
    status, message = second.run("start")
    assert status == STATE and "another" in message, message
    first.end()
    second.end()


def test_a_start_without_the_database_and_without_a_key_fails_soon(
    replica: Start, proxy: Proxy, tmp_path: Path
) -> None:
    for options in ({}, {"state_dir": str(tmp_path / "state")}):
        replica_without_key = replica(database=proxy.url, **options)
        proxy.run("refuse")
        # The first start also compiles the component.
        assert replica_without_key.run("start")[0] == UNAVAILABLE
        began = time.monotonic()
        status, message = replica_without_key.run("start")
        assert time.monotonic() - began < 3
        assert status == UNAVAILABLE and "try again" in message, message
        # A later attempt of the same process succeeds.
        proxy.run("accept")
        replica_without_key.ok("start", "track w1 u1 1 1", "flush", "shutdown")
        replica_without_key.end()


def test_a_silent_database_fails_the_start_within_its_limit(replica: Start, proxy: Proxy) -> None:
    proxy.run("cut silent-request:1")
    waiting = replica(database=proxy.url)
    began = time.monotonic()
    status, message = waiting.run("start")
    assert time.monotonic() - began < 3
    assert status == UNAVAILABLE and "2 s" in message, message
    waiting.end()


def test_a_start_without_the_database_succeeds_with_a_stored_key(replica: Start, proxy: Proxy, tmp_path: Path) -> None:
    options = {"database": proxy.url, "state_dir": str(tmp_path / "state")} | MANUAL
    first = replica(**options)
    first.ok("start", "track w1 u1 1 1", "flush", "shutdown")
    first.end()
    proxy.run("refuse")
    second = replica(**options)
    second.ok("start")
    track(second, 2, 10)
    status = second.status()
    assert not status["database_connected"] and status["connection_error"]
    await_checkpoint(second)
    second.kill()
    third = replica(**options)
    third.ok("start")
    track(third, 11, 12)
    proxy.run("accept")
    until(lambda: third.status()["database_connected"])
    until(lambda: third.run("flush")[0] == 0)
    third.ok("shutdown")
    third.end()
    assert totals(proxy.behind) == (12, 12, 12, 12)


def test_a_flush_without_the_database_fails_and_the_next_one_carries_it(replica: Start, proxy: Proxy) -> None:
    flushing = replica(database=proxy.url, flush_interval="1day", shutdown_timeout="500ms")
    flushing.ok("start", "track w1 u1 1 1", "flush", "track w2 u2 1 1")
    proxy.run("refuse")
    proxy.run("cut write")
    status, message = flushing.run("flush")
    assert status == UNAVAILABLE and message
    assert flushing.status()["failed_flushes"] == 1
    status, _ = flushing.run("shutdown")
    assert status == UNAVAILABLE
    flushing.end()
    assert totals(proxy.behind) == (1, 1, 1, 1)


def test_a_commit_without_a_reply_is_unknown_and_counts_once(replica: Start, proxy: Proxy) -> None:
    flushing = replica(database=proxy.url, flush_interval="1day")
    flushing.ok("start", "track w1 u1 1 1")
    proxy.run("cut reply")
    status, message = flushing.run("flush")
    assert status == COMMIT_UNKNOWN and "unknown" in message, message
    flushing.ok("track w2 u2 1 1", "flush", "shutdown")
    flushing.end()
    assert totals(proxy.behind) == (2, 2, 2, 2)


def socket_url(url: str) -> str:
    """Returns the URL of the same database over the server's socket in the file system."""
    folder = query(url, "SHOW unix_socket_directories")
    port = query(url, "SHOW port")
    return f"postgres:///{url.rpartition('/')[2]}?host={folder}&port={port}&user=postgres"


TERMINATE = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def test_a_broken_connection_does_not_end_the_process_with_sigpipe(replica: Start, proxy: Proxy) -> None:
    flushing = replica(database=socket_url(proxy.behind), flush_interval="1day")
    flushing.ok("start")
    pending = Path(f"/proc/{flushing.process.pid}/status").read_text()
    assert not ignores_sigpipe(pending)
    for number in range(1, 21):
        flushing.ok(f"track w{number} u1 1 1", "flush")
        # The next flush writes to the socket that the server has closed.
        until(lambda: query(proxy.behind, TERMINATE) == 0)
    assert not ignores_sigpipe(Path(f"/proc/{flushing.process.pid}/status").read_text())
    flushing.ok("shutdown")
    flushing.end()
    assert totals(proxy.behind) == (20, 1, 20, 20)


def ignores_sigpipe(status: str) -> bool:
    """Returns whether SIGPIPE is ignored or handled, or blocked by the main thread."""
    fields = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    return any(int(fields[name], 16) >> 12 & 1 for name in ("SigIgn", "SigCgt", "SigBlk"))
