"""A component that crashes or violates the contract loses no activity."""

import os
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
import wasmtime
from faults import Faults
from real_parts import Program, totals
from scenario import uuid
from wasmtime import Module, Store, Trap

from boundary_usage import (
    CommitUnknownError,
    ComponentError,
    Idle,
    RefusedError,
    Tracker,
    UnavailableError,
    Written,
    component,
    connect,
    ledger,
)
from boundary_usage.capabilities import Capabilities
from boundary_usage.component import Instance
from boundary_usage.usage import Cumulative, Delta, Flushed, Sketch, Uniques, Update


class Misbehaving:
    """Replaces the component's next flush.

    The component's own activity is lost with it.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, on_flush: Callable[[Instance], Flushed | None]) -> None:
        flush = Instance._call
        self._cues = [on_flush]

        def call(instance: Instance, function: object, *arguments: Any) -> Any:
            if function is instance._flush and self._cues:
                return self._cues.pop()(instance)
            return flush(instance, function, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(Instance, "_call", call)


def trap(_instance: Instance) -> None:
    raise ComponentError("the component crashed: on cue")


def forget_a_transaction(instance: Instance) -> None:
    instance._capabilities.begin(uuid("r1"))
    instance._capabilities.acquire("replica", "exclusive")


def report_nothing(_instance: Instance) -> None:
    """Reports `idle` despite unflushed activity."""


@pytest.mark.parametrize("cue", [trap, forget_a_transaction, report_nothing])
def test_a_component_that_violates_the_contract_restarts_without_loss(
    url: str, cue: Callable[[Instance], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker(uuid("r1"), connect(url), flush_interval=None)
    for number in range(1, 3_001):
        tracker.track(uuid(f"w{number}"), uuid(f"u{1 + number % 7}"), 2, 1)
    Misbehaving(monkeypatch, cue)
    with pytest.raises(ComponentError):
        tracker.flush()
    # No transaction is open, so another process can write.
    Program(url).json("collect")
    tracker.track(uuid("w1"), uuid("u1"), 1, 0)
    assert tracker.flush() == Written(flush=1, new_period=True)
    assert tracker.flush() == Idle()
    tracker.shutdown()
    assert totals(url) == (3_000, 7, 6_001, 3_000)


@pytest.mark.parametrize("fault", ["commit-lost", "commit-reply-lost"])
def test_a_flush_in_doubt_counts_once_after_a_crash_of_the_component(
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


def test_a_crash_during_track_loses_no_activity(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker(uuid("r1"), connect(sqlite_url), flush_interval=None)
    tracker.track(uuid("w1"), uuid("u1"), 1, 1)

    def fail(*_: object) -> None:
        raise ComponentError("the component crashed: on cue")

    with monkeypatch.context() as patch:
        patch.setattr(Instance, "track", fail)
        for _ in range(2):
            tracker.track(uuid("w2"), uuid("u2"), 1, 1)
            with pytest.raises(ComponentError, match="on cue"):
                tracker.flush()
    assert tracker.flush() == Written(flush=1, new_period=True)
    tracker.shutdown()
    assert totals(sqlite_url) == (2, 2, 3, 3)


def test_a_component_that_computes_too_long_restarts_without_loss(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker(uuid("r1"), connect(sqlite_url), flush_interval=None)
    for number in range(1, 20_001):
        tracker.track(UUID(int=number), uuid("u1"), 1, 0)
    with monkeypatch.context() as patch:
        # No computing time is allowed.
        patch.setattr(component, "EPOCHS_MAX", 0)
        with pytest.raises(ComponentError, match="interrupt"):
            tracker.flush()
    tracker.flush()
    tracker.shutdown()
    workspaces, _, allowed, _ = totals(sqlite_url)
    assert allowed == 20_000
    assert abs(workspaces - 20_000) < 20_000 * 0.04


def test_database_time_does_not_count_as_computing_time(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = Faults(connect(sqlite_url))
    tracker = Tracker(uuid("r1"), faults, flush_interval=None)
    tracker.track(uuid("w1"), uuid("u1"), 1, 0)
    faults.gate.clear()
    flushed: list[Flushed] = []
    flushing = threading.Thread(target=lambda: flushed.append(tracker.flush()))
    flushing.start()
    faults.upserting.wait()
    engine = component._engine(os.getpid())
    for _ in range(10 * component.EPOCHS_MAX):
        engine.increment_epoch()
    faults.gate.set()
    flushing.join()
    assert flushed == [Written(flush=1, new_period=True)]
    tracker.shutdown()


def test_an_endless_loop_is_interrupted() -> None:
    engine = component._engine(os.getpid())
    store = Store(engine)
    store.set_epoch_deadline(1)
    module = Module(engine, '(module (func (export "run") (loop (br 0))))')
    run = wasmtime.Instance(store, module, []).exports(store)["run"]
    assert isinstance(run, wasmtime.Func)
    with pytest.raises(Trap, match="interrupt"):
        run(store)


def test_counts_saturate_after_a_restart_of_the_component(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = Faults(connect(sqlite_url))
    tracker = Tracker(uuid("r1"), faults, flush_interval=None)
    for _ in range(3):
        tracker.track(uuid("w1"), uuid("u1"), 2**63 - 1, 1)
        faults.queued.append("begin")
        with pytest.raises(UnavailableError):
            tracker.flush()
    Misbehaving(monkeypatch, trap)
    with pytest.raises(ComponentError, match="on cue"):
        tracker.flush()
    assert tracker.flush() == Written(flush=1, new_period=True)
    tracker.shutdown()
    assert totals(sqlite_url) == (1, 1, 2**63 - 1, 3)


def test_lost_ids_are_reported_and_their_requests_are_kept(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PAIRS_MAX", 10)
    tracker = Tracker(uuid("r1"), connect(sqlite_url), flush_interval=None)
    for number in range(1, 16):
        tracker.track(uuid(f"w{number}"), uuid("u1"), 1, 1)
    with monkeypatch.context() as patch:
        Misbehaving(patch, trap)
        with pytest.raises(ComponentError, match="on cue"):
            tracker.flush()
        with pytest.raises(ComponentError, match="the ids of 5 activities are lost; their requests are kept"):
            tracker.flush()
    tracker.flush()
    tracker.shutdown()
    assert totals(sqlite_url) == (10, 1, 15, 15)


def updates(honest: Update) -> dict[str, Update]:
    """Returns false updates that a component could write instead of an honest one."""
    uniques = honest.uniques
    assert isinstance(uniques, Delta | Cumulative)
    sketch = uniques.uniques.workspaces.data

    def with_sketch(count: int, data: bytes) -> Update:
        changed = Uniques(Sketch(count, data), uniques.uniques.users)
        return Update(honest.flush, type(uniques)(changed), honest.allowed, honest.denied)

    def change(**fields: int) -> Update:
        return Update(**{**vars(honest), **fields})

    words = b"\x03" + sketch[1:8]
    return {
        "a flush number with a gap": change(flush=2**63 - 1),
        "an old flush number": change(flush=honest.flush - 1),
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
def test_an_update_that_differs_from_the_ledger_is_refused(
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
