"""The component: loaded and compiled once, instantiated for each tracker.

This is the only module that knows the component runtime. The file is the one that `boundary-usage component --world
tracker-blocking` writes, byte for byte: this runtime calls no async functions.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from typing import Any
from uuid import UUID

from wasmtime import Config, Engine, Store, WasmtimeError
from wasmtime.component import Component, Func, Linker, LinkerInstance, Record, ResourceHost, ResourceType, Variant

from .capabilities import Capabilities
from .errors import (
    BoundaryUsageError,
    CommitUnknownError,
    ComponentError,
    ConflictError,
    RefusedError,
    UnavailableError,
)
from .usage import (
    Confirmed,
    Cumulative,
    Delta,
    Flushed,
    Idle,
    Pairs,
    Unchanged,
    Uniques,
    UniqueSet,
    Update,
    Written,
)

FILE = "tracker-blocking.wasm"

_TRANSACTIONS = "boundary:usage/transactions-blocking@0.1.0"
_LOCKS = "boundary:usage/locks-blocking@0.1.0"

MEMORY_BYTES_MAX = 16 << 20
"""The linear memory that an instance may use."""

TICK_SECONDS = 1.0
"""The unit in which computing is measured."""

TICKS_MAX = 60
"""For how many ticks the component may compute without calling the host.

Milliseconds are enough for it. But the time includes the conversion of arguments in Python, and a busy interpreter
makes that wait for its lock again and again.
"""

BATCH = 256
"""How many activities are handed over in one call."""

_TRANSACTION = 1
"""The number of the resource type, and of the one transaction that can be open."""

_ERRORS: dict[str, type[BoundaryUsageError]] = {
    "unavailable": UnavailableError,
    "conflict": ConflictError,
    "commit-unknown": CommitUnknownError,
    "refused": RefusedError,
}


def component_bytes() -> bytes:
    """The component that this package carries."""
    return files(__package__).joinpath(FILE).read_bytes()


@cache
def _compiled() -> tuple[Engine, Component]:
    config = Config()
    config.epoch_interruption = True
    try:
        engine = Engine(config)
        return engine, Component(engine, component_bytes())
    except (OSError, WasmtimeError) as error:
        raise ComponentError(f"cannot load the component {FILE}: {error}") from error


@cache
def _ticking(_process: int) -> Engine:
    """The engine, with a thread that counts its epochs: one for each process, because a fork copies no threads."""
    engine, _ = _compiled()

    def tick() -> None:
        while True:
            time.sleep(TICK_SECONDS)
            engine.increment_epoch()

    threading.Thread(target=tick, name="boundary-usage-ticks", daemon=True).start()
    return engine


class Instance:
    """A running component. Not for two threads at once; and not to be called while a call runs."""

    def __init__(self, replica: UUID, capabilities: Capabilities) -> None:
        engine, component = _ticking(os.getpid()), _compiled()[1]
        self._replica = replica
        self._capabilities = capabilities
        self._store = Store(engine)
        self._store.set_limits(memory_size=MEMORY_BYTES_MAX)
        self._store.set_epoch_deadline(TICKS_MAX)
        linker = Linker(engine)
        self._define(linker)
        try:
            instance = linker.instantiate(self._store, component)
        except WasmtimeError as error:
            raise ComponentError(f"the component {FILE} is not one for this host: {error}") from error
        self._track = self._export(instance.get_func(self._store, "track"), "track")
        self._flush = self._export(instance.get_func(self._store, "flush"), "flush")

    def track(self, pairs: Pairs) -> None:
        """Hands activity to the component. On a `ComponentError` none or a part of it was recorded."""
        activities = [
            _record(workspace=_uuid(workspace), owner=_uuid(owner), allowed=allowed, denied=denied)
            for (workspace, owner), (allowed, denied) in pairs.items()
        ]
        for start in range(0, len(activities), BATCH):
            self._call(self._track, activities[start : start + BATCH])

    def flush(self) -> Flushed:
        """Writes what was tracked since the last flush; raises what the component returned as an error.

        A component that breaks the contract raises a `ComponentError`, like one that traps.
        """
        self._capabilities.flush_begins()
        try:
            flushed = self._call(self._flush, _uuid(self._replica))
        finally:
            has_forgotten = self._capabilities.flush_ends()
        if has_forgotten:
            raise ComponentError("the component ended its flush with a transaction open; it was rolled back")
        if isinstance(flushed, Variant):
            raise _ERRORS[flushed.tag](str(flushed.payload))
        if not self._capabilities.account.is_empty:
            raise ComponentError("the component reported a flush that it has not committed")
        if flushed is None:
            return Idle()
        if isinstance(flushed, int):
            return Confirmed(flushed)
        return Written(flushed.flush, _field(flushed, "new-period"))

    def _call(self, function: Func, *arguments: Any) -> Any:
        self._store.set_epoch_deadline(TICKS_MAX)
        try:
            return function(self._store, *arguments)
        except Exception as error:
            # The component cannot be entered again.
            raise ComponentError(f"the component broke: {error}") from error

    @staticmethod
    def _export(function: Func | None, name: str) -> Func:
        if function is None:
            raise ComponentError(f"the component {FILE} lacks the export {name}")
        return function

    def _define(self, linker: Linker) -> None:
        """Every function that the component may call."""
        capabilities = self._capabilities
        with linker.root() as root:
            with root.add_instance(_TRANSACTIONS) as transactions:
                transactions.add_resource(
                    "transaction", ResourceType.host(_TRANSACTION), lambda _store, _number: capabilities.roll_back()
                )
                transactions.add_func("hashing-key", lambda _store: capabilities.hashing_key())
                transactions.add_func("restore", lambda _store: _record(delta=None, in_doubt=None))
                self._answer(transactions, "[static]transaction.begin", self._begin)
                self._answer(transactions, "[method]transaction.read", self._read)
                self._answer(transactions, "[method]transaction.upsert", self._upsert)
                self._answer(transactions, "[static]transaction.commit", self._commit)
            with root.add_instance(_LOCKS) as locks:
                self._answer(locks, "acquire", self._acquire)

    def _answer(self, interface: LinkerInstance, name: str, function: Callable[..., Any]) -> None:
        """Defines a function that returns its errors; any other exception is a trap."""

        def answer(store: Any, *arguments: Any) -> Any:
            try:
                return function(store, *arguments)
            except BoundaryUsageError as error:
                tags = (tag for tag, kind in _ERRORS.items() if isinstance(error, kind))
                return Variant(next(tags, "refused"), str(error))
            finally:
                # The database's time is not the component's.
                self._store.set_epoch_deadline(TICKS_MAX)

        interface.add_func(name, answer)

    def _begin(self, _store: Any, replica: Record) -> ResourceHost:
        self._capabilities.begin(UUID(int=_field(replica, "high") << 64 | _field(replica, "low")))
        return ResourceHost.own(_TRANSACTION, _TRANSACTION)

    def _acquire(self, store: Any, transaction: Any, lock: str, mode: str) -> None:
        transaction.drop(store)  # The borrow ends with the call, and this runtime wants to be told.
        self._capabilities.acquire(lock, mode)

    def _read(self, store: Any, transaction: Any) -> Record:
        transaction.drop(store)
        stored = self._capabilities.read()
        uniques = stored.uniques
        if uniques is not None:
            workspaces, users = (_record(**asdict(part)) for part in (uniques.workspaces, uniques.users))
            return _record(last_flush=stored.last_flush, uniques=_record(workspaces=workspaces, users=users))
        return _record(last_flush=stored.last_flush, uniques=None)

    def _upsert(self, store: Any, transaction: Any, update: Record) -> bool:
        transaction.drop(store)
        return self._capabilities.upsert(
            Update(
                flush=_field(update, "flush"),
                uniques=_uniques_update(_field(update, "uniques")),
                allowed=_field(update, "allowed"),
                denied=_field(update, "denied"),
            )
        )

    def _commit(self, _store: Any, _transaction: Any) -> None:
        self._capabilities.commit()


def _record(**fields: Any) -> Record:
    """A record for the runtime, which reads fields by their WIT names."""
    record = Record()
    record.__dict__.update({name.replace("_", "-"): value for name, value in fields.items()})
    return record


def _field(record: Any, name: str) -> Any:
    return getattr(record, name)


def _uuid(uuid: UUID) -> Record:
    return _record(high=uuid.int >> 64, low=uuid.int & (1 << 64) - 1)


def _uniques_update(update: Variant) -> Delta | Cumulative | Unchanged:
    if update.tag == "unchanged":
        return Unchanged()
    uniques = _uniques(update.payload)
    return Delta(uniques) if update.tag == "delta" else Cumulative(uniques)


def _uniques(uniques: Any) -> Uniques:
    def unique_set(part: Any) -> UniqueSet:
        return UniqueSet(part.count, part.sketch)

    return Uniques(unique_set(uniques.workspaces), unique_set(uniques.users))
