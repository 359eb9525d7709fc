"""The component, compiled once for each process and instantiated for each tracker.

Only this module uses the component runtime. The runtime has no async functions, so the component has the world
`tracker-blocking`. The component's file equals the output of `boundary-usage component --world tracker-blocking`.
"""

import os
import threading
import time
from collections.abc import Callable
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
    Sketch,
    Unchanged,
    Uniques,
    Update,
    Written,
)

FILE = "tracker-blocking.wasm"

_TRANSACTIONS = "boundary:usage/transactions-blocking@0.1.0"
_LOCKS = "boundary:usage/locks-blocking@0.1.0"

MEMORY_BYTES_MAX = 16 << 20
"""The limit of an instance's linear memory."""

EPOCH_SECONDS = 1.0
"""The unit of the component's computing time."""

EPOCHS_MAX = 60
"""The number of epochs that the component may compute between two calls.

The component computes for milliseconds only. But the measured time includes the conversion of arguments in Python,
which often waits for the interpreter lock if other threads are busy.
"""

BATCH = 256
"""The largest number of activities in one call of `track`."""

_TRANSACTION = 1
"""The number that stands for the resource type, and for the only open transaction."""

_ERRORS: dict[str, type[BoundaryUsageError]] = {
    "unavailable": UnavailableError,
    "conflict": ConflictError,
    "commit-unknown": CommitUnknownError,
    "refused": RefusedError,
}


def component_bytes() -> bytes:
    """Returns the component that this package contains."""
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
def _engine(_process: int) -> Engine:
    """Returns the engine of a process, and starts the thread that counts its epochs.

    A fork copies no threads, so every process needs its own thread.
    """
    engine, _ = _compiled()

    def count_epochs() -> None:
        while True:
            time.sleep(EPOCH_SECONDS)
            engine.increment_epoch()

    threading.Thread(target=count_epochs, name="boundary-usage-epochs", daemon=True).start()
    return engine


class Instance:
    """A running component. Not thread-safe and not reentrant."""

    def __init__(self, replica: UUID, capabilities: Capabilities) -> None:
        engine, component = _engine(os.getpid()), _compiled()[1]
        self._replica = replica
        self._capabilities = capabilities
        self._store = Store(engine)
        self._store.set_limits(memory_size=MEMORY_BYTES_MAX)
        self._store.set_epoch_deadline(EPOCHS_MAX)
        linker = Linker(engine)
        self._define(linker)
        try:
            instance = linker.instantiate(self._store, component)
        except WasmtimeError as error:
            raise ComponentError(f"the component {FILE} does not fit this host: {error}") from error
        self._track = self._export(instance.get_func(self._store, "track"), "track")
        self._flush = self._export(instance.get_func(self._store, "flush"), "flush")

    def track(self, pairs: Pairs) -> None:
        """Forwards activity to the component.

        After a `ComponentError`, the component may have recorded a part of the activity.
        """
        activities = [
            _record(workspace=_uuid(workspace), owner=_uuid(owner), allowed=allowed, denied=denied)
            for (workspace, owner), (allowed, denied) in pairs.items()
        ]
        for start in range(0, len(activities), BATCH):
            self._call(self._track, activities[start : start + BATCH])

    def flush(self) -> Flushed:
        """Writes the activity since the last flush.

        Raises the component's error. Raises `ComponentError` if the component traps or violates the contract.
        """
        self._capabilities.flush_begins()
        try:
            flushed = self._call(self._flush, _uuid(self._replica))
        finally:
            was_open = self._capabilities.flush_ends()
        if was_open:
            raise ComponentError("the component ended its flush with an open transaction, which was rolled back")
        if isinstance(flushed, Variant):
            raise _ERRORS[flushed.tag](str(flushed.payload))
        if not self._capabilities.ledger.is_empty:
            raise ComponentError("the component reported a flush that it did not commit")
        if flushed is None:
            return Idle()
        if isinstance(flushed, int):
            return Confirmed(flushed)
        return Written(flushed.flush, _field(flushed, "new-period"))

    def _call(self, function: Func, *arguments: Any) -> Any:
        self._store.set_epoch_deadline(EPOCHS_MAX)
        try:
            return function(self._store, *arguments)
        except Exception as error:
            # The runtime does not allow further calls of this instance.
            raise ComponentError(f"the component crashed: {error}") from error

    @staticmethod
    def _export(function: Func | None, name: str) -> Func:
        if function is None:
            raise ComponentError(f"the component {FILE} has no export {name}")
        return function

    def _define(self, linker: Linker) -> None:
        """Defines every function that the component may call."""
        capabilities = self._capabilities
        with linker.root() as root:
            with root.add_instance(_TRANSACTIONS) as transactions:
                transactions.add_resource(
                    "transaction", ResourceType.host(_TRANSACTION), lambda _store, _number: capabilities.roll_back()
                )
                transactions.add_func("hashing-key", lambda _store: capabilities.hashing_key())
                transactions.add_func("restore", lambda _store: _record(delta=None, in_doubt=None))
                self._add_fallible(transactions, "[static]transaction.begin", self._begin)
                self._add_fallible(transactions, "[method]transaction.read", self._read)
                self._add_fallible(transactions, "[method]transaction.upsert", self._upsert)
                self._add_fallible(transactions, "[static]transaction.commit", self._commit)
            with root.add_instance(_LOCKS) as locks:
                self._add_fallible(locks, "acquire", self._acquire)

    def _add_fallible(self, interface: LinkerInstance, name: str, function: Callable[..., Any]) -> None:
        """Defines a function that returns errors of the contract.

        Any other exception is a trap.
        """

        def call(store: Any, *arguments: Any) -> Any:
            try:
                return function(store, *arguments)
            except BoundaryUsageError as error:
                tags = (tag for tag, kind in _ERRORS.items() if isinstance(error, kind))
                return Variant(next(tags, "refused"), str(error))
            finally:
                # The time of a database call does not count as computing time of the component.
                self._store.set_epoch_deadline(EPOCHS_MAX)

        interface.add_func(name, call)

    def _begin(self, _store: Any, replica: Record) -> ResourceHost:
        self._capabilities.begin(UUID(int=_field(replica, "high") << 64 | _field(replica, "low")))
        return ResourceHost.own(_TRANSACTION, _TRANSACTION)

    def _acquire(self, store: Any, transaction: Any, lock: str, mode: str) -> None:
        transaction.drop(store)  # The runtime requires an explicit end of the borrow.
        self._capabilities.acquire(lock, mode)

    def _read(self, store: Any, transaction: Any) -> Record:
        transaction.drop(store)
        stored = self._capabilities.read()
        uniques = stored.uniques
        if uniques is not None:
            record = _record(workspaces=_sketch_record(uniques.workspaces), users=_sketch_record(uniques.users))
            return _record(last_flush=stored.last_flush, uniques=record)
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
    """Returns a record for the runtime, which reads fields by their WIT names."""
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


def _uniques(record: Any) -> Uniques:
    return Uniques(_sketch(record.workspaces), _sketch(record.users))


def _sketch_record(sketch: Sketch) -> Record:
    return _record(count=sketch.count, bytes=sketch.data)


def _sketch(record: Any) -> Sketch:
    return Sketch(record.count, record.bytes)
