"""Faulty arguments, exceptions, threads and processes lose no activity."""

import logging
import os
import re
import signal
import threading
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from faults import Faults, FaultyTransaction
from real_parts import totals
from scenario import uuid

from boundary_usage import (
    CommitUnknownError,
    ConfigurationError,
    RefusedError,
    StoppedError,
    Tracker,
    UnavailableError,
    Written,
    connect,
)
from boundary_usage.errors import printable
from boundary_usage.intake import Intake


class Integer:
    """An integer that is no `int`, like NumPy's."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


def test_invalid_types_raise_type_errors_and_record_nothing(sqlite_url: str) -> None:
    tracker = Tracker(uuid("r1"), connect(sqlite_url), flush_interval=None)
    tracker.track(uuid("w1"), uuid("u1"), 5, 1)
    for wrong in (1.5, float("nan"), float("inf"), 1.0, Decimal(1), Fraction(1), "1", None, b"1"):
        with pytest.raises(TypeError):
            tracker.track(uuid("w2"), uuid("u2"), wrong, 0)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            tracker.try_track(uuid("w2"), uuid("u2"), 0, wrong)  # type: ignore[arg-type]
    for wrong_id in ("w1", 1, str(uuid("w1")), None, uuid("w1").bytes):
        with pytest.raises(TypeError):
            tracker.track(wrong_id, uuid("u2"), 1, 0)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            tracker.track(uuid("w2"), wrong_id, 1, 0)  # type: ignore[arg-type]
    tracker.track(uuid("w1"), uuid("u1"), Integer(3), True)  # type: ignore[arg-type]
    assert tracker.flush() == Written(flush=1, new_period=True)
    tracker.shutdown()
    assert totals(sqlite_url) == (1, 1, 8, 2)


@pytest.mark.parametrize(
    "options",
    [
        {"flush_interval": 1e300},
        {"flush_interval": float("inf")},
        {"flush_interval": float("nan")},
        {"flush_interval": 0},
        {"flush_jitter": float("nan")},
        {"flush_jitter": 1.1},
        {"shutdown_timeout": float("nan")},
        {"shutdown_timeout": -1},
        {"shutdown_timeout": 1e300},
        {"intake_capacity": 0},
    ],
)
def test_options_out_of_range_are_refused(sqlite_url: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        Tracker(uuid("r1"), connect(sqlite_url), **options)


def test_all_calls_raise_the_reason_after_the_thread_ended(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise SystemExit("on cue")

    tracker = Tracker(uuid("r1"), connect(sqlite_url), flush_interval=None)
    with monkeypatch.context() as patch:
        patch.setattr(Intake, "drain", fail)
        with pytest.raises(StoppedError, match="on cue"):
            tracker.flush()
    for call in (lambda: tracker.track(uuid("w1"), uuid("u1"), 1, 0), tracker.flush, tracker.shutdown):
        with pytest.raises(StoppedError, match="thread ended unexpectedly.*on cue"):
            call()


@pytest.mark.parametrize("step", ["acquire_cutover", "acquire_replica", "read", "upsert", "begin"])
def test_an_unexpected_exception_of_the_database_loses_no_activity(
    url: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    tracker = Tracker(uuid("r1"), Faults(connect(url)), flush_interval=None)
    tracker.track(uuid("w1"), uuid("u1"), 1, 1)
    with monkeypatch.context() as patch:
        patch.setattr(Faults if step == "begin" else FaultyTransaction, step, fail)
        with pytest.raises(UnavailableError, match="can't start new thread"):
            tracker.flush()
    tracker.track(uuid("w2"), uuid("u2"), 2, 1)
    assert tracker.flush() == Written(flush=1, new_period=True)
    tracker.shutdown()
    assert totals(url) == (2, 2, 3, 2)


@pytest.mark.parametrize("is_applied", [False, True])
def test_a_commit_with_an_unexpected_exception_counts_once(
    url: str, is_applied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = FaultyTransaction.commit

    def fail(transaction: FaultyTransaction) -> None:
        if is_applied:
            commit(transaction)
        else:
            transaction.rollback()
        raise MemoryError("on cue")

    tracker = Tracker(uuid("r1"), Faults(connect(url)), flush_interval=None)
    tracker.track(uuid("w1"), uuid("u1"), 1, 1)
    with monkeypatch.context() as patch:
        patch.setattr(FaultyTransaction, "commit", fail)
        with pytest.raises(CommitUnknownError, match="outcome is unknown.*MemoryError.*on cue"):
            tracker.flush()
    tracker.track(uuid("w2"), uuid("u2"), 2, 1)
    tracker.flush()
    tracker.shutdown()
    assert totals(url) == (2, 2, 3, 2)


def test_flushes_start_no_threads(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    tracker = Tracker(uuid("r1"), connect(url), flush_interval=None)
    tracker.track(uuid("w1"), uuid("u1"), 1, 1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        assert tracker.flush() == Written(flush=1, new_period=True)
    tracker.shutdown()


def test_after_a_fork_the_child_cannot_use_the_parents_tracker(url: str) -> None:
    database = connect(url)
    tracker = Tracker(uuid("r1"), database, flush_interval=None)
    tracker.track(uuid("w1"), uuid("u1"), 1, 1)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        calls = {
            "track": lambda: tracker.track(uuid("w2"), uuid("u2"), 1, 1),
            "try_track": lambda: tracker.try_track(uuid("w2"), uuid("u2"), 1, 1),
            "flush": tracker.flush,
            "shutdown": tracker.shutdown,
            "Tracker": lambda: Tracker(uuid("r2"), database),
        }
        for name, call in calls.items():
            try:
                call()
                outcome = "accepted"
            except (StoppedError, RefusedError) as error:
                outcome = "refused" if "fork" in str(error) else str(error)
            os.write(writing, f"{name} {outcome}\n".encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        outcomes = pipe.read().splitlines()
    os.waitpid(child, 0)
    assert outcomes == [f"{name} refused" for name in ("track", "try_track", "flush", "shutdown", "Tracker")]
    assert tracker.flush() == Written(flush=1, new_period=True)
    tracker.shutdown()
    assert totals(url) == (1, 1, 1, 1)


def test_a_child_can_start_its_own_tracker_after_a_fork(url: str) -> None:
    parent = Tracker(uuid("r1"), connect(url), flush_interval=None)
    parent.track(uuid("w1"), uuid("u1"), 1, 0)
    parent.flush()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        status = 1
        try:
            tracker = Tracker(uuid("r2"), connect(url), flush_interval=None)
            tracker.track(uuid("w2"), uuid("u2"), 5, 0)
            status = 0 if tracker.shutdown() == Written(flush=1, new_period=True) else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    parent.shutdown()
    assert totals(url) == (2, 2, 6, 0)


def test_quoted_text_is_short_and_has_no_control_characters(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    evil = "\x1b]0;owned\x07line\nsecond\u202e " + "x" * 60_000

    def fail(*_: object) -> None:
        raise UnavailableError(evil)

    tracker = Tracker(uuid("r1"), Faults(connect(sqlite_url)), flush_interval=None)
    tracker.track(uuid("w1"), uuid("u1"), 1, 1)
    monkeypatch.setattr(Faults, "begin", fail)
    with caplog.at_level(logging.WARNING), pytest.raises(UnavailableError) as failed:
        tracker.flush()
    for text in (str(failed.value), caplog.messages[0]):
        assert text.isprintable()
        assert len(text) < 1_200
        assert re.search(r"\\x1b\]0;owned\\x07line second\\u202e", text)
    assert printable("plain — text") == "plain — text"
    monkeypatch.undo()
    tracker.shutdown()
