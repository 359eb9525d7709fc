"""Promises of `track`, `flush` and `shutdown`, also while they run simultaneously."""

import logging
import threading
from uuid import UUID

import pytest
from faults import Faults
from real_parts import totals
from scenario import uuid

from boundary_usage import (
    ComponentError,
    ConfigurationError,
    ConflictError,
    Idle,
    RefusedError,
    StoppedError,
    TimedOutError,
    Tracker,
    UnavailableError,
    Written,
    connect,
)
from boundary_usage.capabilities import Capabilities
from boundary_usage.database import postgres
from boundary_usage.schedule import FailedAttempts, Schedule
from boundary_usage.usage import Cumulative, Delta, Sketch, Unchanged, Uniques, Update


def test_r3_activity_during_a_flush_belongs_to_the_next_one(url: str) -> None:
    faults = Faults(connect(url))
    tracker = Tracker(uuid("r1"), faults, flush_interval=None)
    tracker.track(uuid("w1"), uuid("u1"), 10, 5)
    faults.gate.clear()
    first: list[object] = []
    flushing = threading.Thread(target=lambda: first.append(tracker.flush()))
    flushing.start()
    faults.upserting.wait()
    tracker.track(uuid("w2"), uuid("u2"), 20, 10)
    faults.gate.set()
    flushing.join()
    assert first == [Written(flush=1, new_period=True)]
    assert tracker.flush() == Written(flush=2, new_period=False)
    tracker.shutdown()
    assert totals(url) == (2, 2, 30, 15)


def test_the_first_of_repeated_failures_is_logged_and_then_one_a_minute() -> None:
    attempts = FailedAttempts()
    shown = [attempt for second in range(150) if (attempt := attempts.failed(float(second)))]
    assert shown == [1, 61, 121]
    assert (attempts.succeeded(), attempts.succeeded()) == (150, 0)
    assert attempts.failed(150.0) == 1


def test_failed_flushes_are_logged_with_replica_and_attempt(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    faults = Faults(connect(sqlite_url))
    tracker = Tracker(uuid("r1"), faults, flush_interval=None)
    tracker.track(uuid("w1"), uuid("u1"), 1, 1)
    with caplog.at_level(logging.INFO, logger="boundary_usage"):
        for _ in range(3):
            faults.queued.append("begin")
            with pytest.raises(UnavailableError):
                tracker.flush()
        tracker.flush()
    tracker.shutdown()
    first, last = caplog.messages
    assert first.startswith(f"a flush of replica {uuid('r1')} failed (attempt 1) and is repeated: ")
    assert last == f"the flushes of replica {uuid('r1')} succeed again after 3 failed attempts"


def test_r7_the_flush_loop_continues_after_a_failure(sqlite_url: str) -> None:
    faults = Faults(connect(sqlite_url))
    faults.queued.append("begin")
    with Tracker(uuid("r1"), faults, flush_interval=0.001) as tracker:
        tracker.track(uuid("w1"), uuid("u1"), 1, 1)
        assert faults.upserting.wait(60)
    assert faults.begun >= 2
    assert totals(sqlite_url) == (1, 1, 1, 1)


def test_d5_a_shutdown_flushes_and_refuses_further_calls(sqlite_url: str) -> None:
    tracker = Tracker(uuid("r1"), connect(sqlite_url), flush_interval=None)
    tracker.track(uuid("w1"), uuid("u1"), 1, 1)
    assert tracker.shutdown() == Written(flush=1, new_period=True)
    for call in (lambda: tracker.track(uuid("w1"), uuid("u1")), tracker.flush, tracker.shutdown):
        with pytest.raises(StoppedError):
            call()


def test_d5_a_shutdown_times_out(sqlite_url: str) -> None:
    faults = Faults(connect(sqlite_url))
    tracker = Tracker(uuid("r1"), faults, flush_interval=None, shutdown_timeout=0.01)
    tracker.track(uuid("w1"), uuid("u1"), 1, 1)
    faults.gate.clear()
    with pytest.raises(TimedOutError):
        tracker.shutdown()
    faults.gate.set()


def test_r6_the_intake_is_bounded_by_the_number_of_different_pairs(sqlite_url: str) -> None:
    faults = Faults(connect(sqlite_url))
    tracker = Tracker(uuid("r1"), faults, flush_interval=None, intake_capacity=3)
    tracker.track(uuid("w9"), uuid("u9"), 1, 1)
    faults.gate.clear()
    flushing = threading.Thread(target=tracker.flush)
    flushing.start()
    faults.upserting.wait()
    assert all(tracker.try_track(uuid(f"w{number}"), uuid("u1"), 1, 0) for number in (1, 2, 3))
    assert not tracker.try_track(uuid("w4"), uuid("u1"), 1, 0)
    assert tracker.try_track(uuid("w3"), uuid("u1"), 1, 0)
    waiting = threading.Thread(target=tracker.track, args=[uuid("w4"), uuid("u1"), 1, 0])
    waiting.start()
    faults.gate.set()
    waiting.join()
    flushing.join()
    tracker.shutdown()
    assert totals(sqlite_url) == (5, 2, 6, 1)


def test_counts_saturate_and_invalid_ids_and_counts_are_refused(sqlite_url: str) -> None:
    tracker = Tracker(uuid("r1"), connect(sqlite_url), flush_interval=None)
    for _ in range(2):
        tracker.track(uuid("w1"), uuid("u1"), 2**70, 2**63 - 1)
        tracker.flush()
    for wrong in [(UUID(int=0), uuid("u1"), 0, 0), (uuid("w1"), UUID(int=0), 0, 0), (uuid("w1"), uuid("u1"), -1, 0)]:
        with pytest.raises(ConfigurationError):
            tracker.track(*wrong)
    tracker.shutdown()
    assert totals(sqlite_url) == (1, 1, 2**63 - 1, 2**63 - 1)
    with pytest.raises(ConfigurationError):
        Tracker(UUID(int=0), connect(sqlite_url))


def test_unique_counts_beyond_the_exact_range_are_estimated(sqlite_url: str) -> None:
    with Tracker(uuid("r1"), connect(sqlite_url), flush_interval=None, intake_capacity=4_096) as tracker:
        for number in range(1, 20_001):
            tracker.track(UUID(int=number), uuid("u1"), 1, 0)
        tracker.flush()
        tracker.track(UUID(int=1), uuid("u1"), 1, 0)
    workspaces, users, allowed, denied = totals(sqlite_url)
    assert (users, allowed, denied) == (1, 20_001, 0)
    assert abs(workspaces - 20_000) < 20_000 * 0.04


def test_a_component_that_crashes_is_restarted(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = Faults(connect(sqlite_url))
    tracker = Tracker(uuid("r1"), faults, flush_interval=None)
    tracker.track(uuid("w1"), uuid("u1"), 1, 1)
    # An exception outside the contract is a trap, while the transaction is open.
    with monkeypatch.context() as patch:
        patch.setattr(Capabilities, "acquire", lambda *_: 1 / 0)
        with pytest.raises(ComponentError, match="division by zero"):
            tracker.flush()
    tracker.track(uuid("w2"), uuid("u2"), 2, 1)
    assert tracker.flush() == Written(flush=1, new_period=True)
    tracker.shutdown()


def test_r9_calls_outside_the_contract_are_refused(url: str) -> None:
    capabilities = Capabilities(uuid("r1"), connect(url))
    empty = Sketch(0, bytes.fromhex("01030300001e0000"))
    update = Update(1, Delta(Uniques(empty, empty)), 0, 0)

    def refused(message: str, call: object, *arguments: object) -> None:
        with pytest.raises(RefusedError, match=message):
            call(*arguments)  # type: ignore[operator]

    refused("no open transaction", capabilities.read)
    refused("not the component's own replica", capabilities.begin, uuid("r2"))
    capabilities.begin(uuid("r1"))
    refused("already has an open transaction", capabilities.begin, uuid("r1"))
    refused("a read needs the replica's lock", capabilities.read)
    refused("only a collection", capabilities.acquire, "cutover", "exclusive")
    refused("no shared mode", capabilities.acquire, "replica", "shared")
    capabilities.acquire("cutover", "shared")
    capabilities.acquire("replica", "exclusive")
    refused("and a read", capabilities.upsert, update)
    capabilities.read()
    damaged = Uniques(Sketch(1, b"7" * 64), empty)
    refused("not a compact Theta sketch", capabilities.upsert, Update(1, Delta(damaged), 0, 0))
    for of_an_existing_row in (Unchanged(), Cumulative(Uniques(empty, empty))):
        refused("does not match the stored usage", capabilities.upsert, Update(1, of_an_existing_row, 0, 0))
    refused("more than 2\\^63 - 1", capabilities.upsert, Update(1, update.uniques, 2**63, 0))
    assert capabilities.upsert(update)
    refused("already has an upsert", capabilities.upsert, update)
    capabilities.commit()
    refused("already sent its commit", capabilities.begin, uuid("r1"))
    capabilities.flush_begins()
    capabilities.begin(uuid("r1"))
    refused("no upsert to commit", capabilities.commit)


def test_d6_a_flush_waits_for_its_locks_with_a_limit(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    short = postgres.SQL["begin_flush"].replace(b"lock_timeout = '5s'", b"lock_timeout = '10ms'")
    assert short != postgres.SQL["begin_flush"]
    monkeypatch.setitem(postgres.SQL, "begin_flush", short)
    with Tracker(uuid("r1"), connect(postgres_url), flush_interval=None) as tracker:
        tracker.track(uuid("w1"), uuid("u1"), 1, 1)
        with postgres.psycopg.connect(postgres_url) as collection:
            collection.execute("SELECT pg_advisory_xact_lock(9)")
            with pytest.raises(ConflictError, match="cutover lock"):
                tracker.flush()
        with postgres.psycopg.connect(postgres_url) as other:
            postgres.psycopg.RawCursor(other).execute(postgres.SQL["acquire_replica_lock"], [uuid("r1")])
            with pytest.raises(ConflictError, match="another flush of replica"):
                tracker.flush()
        assert tracker.flush() == Written(flush=1, new_period=True)
        assert tracker.flush() == Idle()


def test_a_flush_to_a_silent_server_times_out(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Tracker(uuid("r1"), connect(postgres_url), flush_interval=None) as tracker:
        tracker.track(uuid("w1"), uuid("u1"), 1, 1)
        with postgres.psycopg.connect(postgres_url) as collection:
            collection.execute("SELECT pg_advisory_xact_lock(9)")
            with monkeypatch.context() as patch:
                patch.setattr(postgres, "TRANSACTION_SECONDS", 0.05)
                with pytest.raises(UnavailableError):
                    tracker.flush()
        assert tracker.flush() == Written(flush=1, new_period=True)


def test_a_broken_idle_connection_is_replaced(postgres_url: str) -> None:
    with Tracker(uuid("r1"), connect(postgres_url), flush_interval=None) as tracker:
        tracker.track(uuid("w1"), uuid("u1"), 1, 1)
        tracker.flush()
        with postgres.psycopg.connect(postgres_url, autocommit=True) as administrator:
            administrator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'boundary-usage'"
                " AND datname = current_database()"
            )
        tracker.track(uuid("w2"), uuid("u2"), 1, 1)
        assert tracker.flush() == Written(flush=2, new_period=False)


def test_the_schedule_has_jitter_and_short_waits_after_failures() -> None:
    schedule = Schedule(60, 0.1)
    assert [schedule.after_success(random) for random in (0, 0.5, 1)] == pytest.approx([54, 60, 66])
    assert [schedule.after_failure(0.5) for _ in range(8)] == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60])
    schedule.after_success(0.5)
    assert schedule.after_failure(0.5) == pytest.approx(1)
