"""What is kept when arguments, threads, processes or the component itself misbehave."""

import logging
import os
import re
import threading
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from conftest import Program
from faults import Faults, FaultyTransaction
from scenario import uuid

from boundary_usage import (
    CommitUnknownError,
    ComponentError,
    ConfigurationError,
    Idle,
    RefusedError,
    StoppedError,
    Tracker,
    UnavailableError,
    Written,
    account,
    connect,
)
from boundary_usage.capabilities import Capabilities
from boundary_usage.component import Instance
from boundary_usage.errors import printable
from boundary_usage.intake import Intake
from boundary_usage.usage import Cumulative, Delta, Flushed, Uniques, UniqueSet, Update


class Integer:
    """What NumPy's integers are: no `int`, and an integer all the same."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


def totals(url: str) -> tuple[int, ...]:
    summary = Program(url).json("collect")
    return tuple(summary[name] for name in ("unique_workspaces", "unique_users", "allowed_requests", "denied_requests"))


def test_counts_that_are_no_integers_are_refused_and_spoil_nothing(sqlite_url: str) -> None:
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


def test_a_tracker_whose_thread_ended_accepts_nothing_and_says_why(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise SystemExit("on cue")

    tracker = Tracker(uuid("r1"), connect(sqlite_url), flush_interval=None)
    with monkeypatch.context() as patch:
        patch.setattr(Intake, "take", fail)
        with pytest.raises(StoppedError, match="on cue"):
            tracker.flush()
    for call in (lambda: tracker.track(uuid("w1"), uuid("u1"), 1, 0), tracker.flush, tracker.shutdown):
        with pytest.raises(StoppedError, match="thread ended unexpectedly.*on cue"):
            call()


@pytest.mark.parametrize("step", ["acquire_cutover", "acquire_replica", "read", "upsert", "begin"])
def test_an_unexpected_exception_of_the_database_fails_the_flush_and_loses_nothing(
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
def test_an_unexpected_exception_of_a_commit_leaves_it_unknown_and_counts_once(
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


class Misbehaving:
    """Has the component's place, and does something else at the next flush. What it was given is lost with it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, on_flush: Callable[[Instance], Flushed | None]) -> None:
        flush = Instance._call
        self._cues = [on_flush]

        def call(instance: Instance, function: object, *arguments: Any) -> Any:
            if function is instance._flush and self._cues:
                return self._cues.pop()(instance)
            return flush(instance, function, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(Instance, "_call", call)


def trap(_instance: Instance) -> None:
    raise ComponentError("the component broke: on cue")


def forget_a_transaction(instance: Instance) -> None:
    instance._capabilities.begin(uuid("r1"))
    instance._capabilities.acquire("replica", "exclusive")


def report_nothing(_instance: Instance) -> None:
    """Reports `idle`, though it was given activity."""


@pytest.mark.parametrize("cue", [trap, forget_a_transaction, report_nothing])
def test_a_component_that_breaks_the_contract_is_replaced_and_nothing_is_lost(
    url: str, cue: Callable[[Instance], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker(uuid("r1"), connect(url), flush_interval=None)
    for number in range(1, 3_001):
        tracker.track(uuid(f"w{number}"), uuid(f"u{1 + number % 7}"), 2, 1)
    Misbehaving(monkeypatch, cue)
    with pytest.raises(ComponentError):
        tracker.flush()
    # Another process can write: no transaction has stayed open.
    Program(url).json("collect")
    tracker.track(uuid("w1"), uuid("u1"), 1, 0)
    assert tracker.flush() == Written(flush=1, new_period=True)
    assert tracker.flush() == Idle()
    tracker.shutdown()
    assert totals(url) == (3_000, 7, 6_001, 3_000)


@pytest.mark.parametrize("fault", ["commit-lost", "commit-reply-lost"])
def test_a_component_that_breaks_with_a_flush_in_doubt_counts_it_once(
    url: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = Faults(connect(url))
    tracker = Tracker(uuid("r1"), faults, flush_interval=None)
    tracker.track(uuid("w1"), uuid("u1"), 4, 2)
    faults.queued.append(fault)
    with pytest.raises(CommitUnknownError):
        tracker.flush()
    tracker.track(uuid("w2"), uuid("u2"), 1, 0)
    Misbehaving(monkeypatch, trap)
    with pytest.raises(ComponentError):
        tracker.flush()
    tracker.flush()
    tracker.shutdown()
    assert totals(url) == (2, 2, 5, 2)


def test_a_component_that_breaks_over_what_it_is_given_loses_nothing(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker(uuid("r1"), connect(sqlite_url), flush_interval=None)
    tracker.track(uuid("w1"), uuid("u1"), 1, 1)

    def fail(*_: object) -> None:
        raise ComponentError("the component broke: on cue")

    with monkeypatch.context() as patch:
        patch.setattr(Instance, "track", fail)
        for _ in range(2):
            tracker.track(uuid("w2"), uuid("u2"), 1, 1)
            with pytest.raises(ComponentError, match="on cue"):
                tracker.flush()
    assert tracker.flush() == Written(flush=1, new_period=True)
    tracker.shutdown()
    assert totals(sqlite_url) == (2, 2, 3, 3)


def test_what_the_account_cannot_hold_is_reported_when_it_is_lost_and_requests_are_kept(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "PAIRS_MAX", 10)
    tracker = Tracker(uuid("r1"), connect(sqlite_url), flush_interval=None)
    for number in range(1, 16):
        tracker.track(uuid(f"w{number}"), uuid("u1"), 1, 1)
    with monkeypatch.context() as patch:
        Misbehaving(patch, trap)
        with pytest.raises(ComponentError, match="on cue"):
            tracker.flush()
        with pytest.raises(ComponentError, match="the ids of 5 activities are lost; requests are kept"):
            tracker.flush()
    tracker.flush()
    tracker.shutdown()
    assert totals(sqlite_url) == (10, 1, 15, 15)


def updates(honest: Update) -> dict[str, Update]:
    """What a component could write instead of an honest update of one workspace."""
    uniques = honest.uniques
    assert isinstance(uniques, Delta | Cumulative)
    sketch = uniques.uniques.workspaces.sketch

    def with_sketch(count: int, data: bytes) -> Update:
        changed = Uniques(UniqueSet(count, data), uniques.uniques.users)
        return Update(honest.flush, type(uniques)(changed), honest.allowed, honest.denied)

    def change(**fields: int) -> Update:
        return Update(**{**vars(honest), **fields})

    words = b"\x03" + sketch[1:8]
    return {
        "a number that leaps": change(flush=2**63 - 1),
        "an old number": change(flush=honest.flush - 1),
        "more requests": change(allowed=honest.allowed + 1),
        "fewer requests": change(denied=honest.denied - 1),
        "another count": with_sketch(7, sketch),
        "no hashes and theta 1": with_sketch(0, words + (0).to_bytes(8, "little") + (1).to_bytes(8, "little")),
        "hash 1 and theta 2": with_sketch(
            2**62, words + b"".join(number.to_bytes(8, "little") for number in (1, 2, 1))
        ),
        "more ids": with_sketch(
            3, b"\x02" + sketch[1:8] + b"".join(number.to_bytes(8, "little") for number in (3, 5, 6, 7))
        ),
        "no ids": with_sketch(0, bytes.fromhex("01030300001e0000")),
        "random bytes": with_sketch(1, b"7" * 64),
    }


@pytest.mark.parametrize("is_new_period", [True, False])
def test_b2_and_b3_kinds_an_update_that_differs_from_the_hosts_account_is_refused(
    sqlite_url: str, is_new_period: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker(uuid("r1"), connect(sqlite_url), flush_interval=None)
    if not is_new_period:
        tracker.track(uuid("w1"), uuid("u1"), 1, 1)
        tracker.flush()
    upsert, names, refused = Capabilities.upsert, [], []

    def dishonest(capabilities: Capabilities, update: Update) -> bool:
        names.extend(updates(update))
        for name, wrong in updates(update).items():
            try:
                upsert(capabilities, wrong)
            except RefusedError:
                refused.append(name)
        return upsert(capabilities, update)

    tracker.track(uuid("w2"), uuid("u2"), 5, 3)
    monkeypatch.setattr(Capabilities, "upsert", dishonest)
    tracker.flush()
    assert refused == names
    tracker.shutdown()
    assert totals(sqlite_url) == ((1, 1, 5, 3) if is_new_period else (2, 2, 6, 4))


def test_after_a_fork_the_childs_copy_refuses_and_the_parent_goes_on(url: str) -> None:
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


def test_text_of_others_in_messages_is_one_short_line_without_control_characters(
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
