"""PostgreSQL: for several replicas, on any number of machines.

A flush shares the cutover lock with other flushes and holds a lock of its replica's own. Both are advisory locks of
the transaction, under the keys of the Rust host, so they end with it and hold against its collections. Times are the
server's.
"""

import logging
import os
import re
import socket
from contextlib import suppress
from functools import partial, reduce
from operator import xor
from typing import Any
from uuid import UUID

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from ..errors import (
    BoundaryUsageError,
    CommitUnknownError,
    ConflictError,
    RefusedError,
    UnavailableError,
)
from ..usage import Stored, Update
from . import postgres_schema, rows, schema
from . import url as urls
from .watchdog import Watchdog

_log = logging.getLogger("boundary_usage")

TRANSACTION_SECONDS = 30.0
"""The longest that a transaction may take. The server's own limits are shorter; this is for when it is silent."""

_BEGIN = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = '5s'; "
    "SET LOCAL statement_timeout = '10s'; SET LOCAL idle_in_transaction_session_timeout = '15s'"
)

LOOK_SECONDS, MIGRATE_SECONDS = 10.0, 400.0
"""The longest that it may take to see whether the schema is up to date, and to bring it there."""

SLOW_SECONDS = 2.0
"""When a log line says that connecting takes long."""


def _write(stats: str) -> str:
    """Writes the row, and records the flush if that has changed one; answers a row if it has."""
    return f"""
        WITH written AS (
            {stats}
            RETURNING s.replica_id
        )
        INSERT INTO boundary_usage_replicas (replica_id, last_flush, flushed_at)
        SELECT replica_id, $2, statement_timestamp() FROM written
        ON CONFLICT (replica_id) DO UPDATE SET last_flush = excluded.last_flush, flushed_at = excluded.flushed_at
        RETURNING replica_id"""


_INSERT = _write("""
    INSERT INTO boundary_usage_stats AS s (
        replica_id, allowed_requests, denied_requests, unique_workspaces_count, unique_users_count,
        workspaces_sketch, users_sketch, window_start, updated_at
    )
    SELECT $1, $3, $4, $5, $6, $7, $8, statement_timestamp(), statement_timestamp()
    WHERE NOT EXISTS (SELECT FROM boundary_usage_replicas WHERE replica_id = $1 AND last_flush >= $2)
    ON CONFLICT (replica_id) DO NOTHING""")


def _update(sets: str) -> str:
    return _write(f"""
    UPDATE boundary_usage_stats AS s SET
        allowed_requests = s.allowed_requests + least($3, 9223372036854775807 - s.allowed_requests),
        denied_requests = s.denied_requests + least($4, 9223372036854775807 - s.denied_requests),
        {sets}
        updated_at = statement_timestamp()
    FROM boundary_usage_replicas AS r
    WHERE s.replica_id = $1 AND r.replica_id = $1 AND r.last_flush < $2""")


_UPDATE = _update("""
        unique_workspaces_count = $5,
        unique_users_count = $6,
        workspaces_sketch = $7,
        users_sketch = $8,""")

_UPDATE_REQUESTS = _update("")

_UNCERTAIN = ("08", "57", "40003")
"""Errors that may come after a commit was done: a session that ends or is cancelled, a pooler that lost the server."""

Connection = psycopg.Connection[Any]


class Postgres:
    """A PostgreSQL database."""

    def __init__(self, url: str) -> None:
        self._parameters = _parameters(url)
        self._address = urls.address(self._parameters, os.environ)
        self._process = os.getpid()
        self._idle: list[Connection] = []
        self._key: bytes | None = None
        self._watchdog = Watchdog()
        try:
            connection = self._open()
            try:
                self._settings = self._prepare(connection)
            except psycopg.Error as error:
                connection.close()
                raise _failure(f"bringing the schema up to date on {self._address}", error) from error
            except BaseException:
                connection.close()
                raise
        except BaseException:
            self._watchdog.close()
            raise
        self._idle.append(connection)

    def hashing_key(self) -> bytes:
        """The 16 bytes under which ids are hashed."""
        transaction = self.begin()
        try:
            self._key = transaction.hashing_key()
        finally:
            transaction.rollback()
        return self._key

    def begin(self) -> "PostgresTransaction":
        """Opens a transaction. An idle connection may have died unnoticed: the next one is tried, at last a new one."""
        if os.getpid() != self._process:
            raise RefusedError(
                f"process {self._process} connected to the database, and this is a fork; connect after the fork"
            )
        if self._watchdog.is_closed:
            # A database that was closed opens again for a tracker that still flushes.
            self._watchdog = Watchdog()
        while True:
            try:
                connection, is_reused = self._idle.pop(), True
            except IndexError:
                connection, is_reused = self._open(), False
            transaction = PostgresTransaction(connection, self._idle, self._watchdog)
            try:
                connection.execute(f"{_BEGIN}; {self._settings}".encode())
                # The component has hashed its ids under this key; under another one they would count twice.
                if not is_reused and self._key is not None and transaction.hashing_key() != self._key:
                    what = "the database was replaced by one with another hashing key"
                    raise RefusedError(f"{what}; connect to the right one, or start again")
                return transaction
            except psycopg.Error as error:
                transaction.abandon()
                if not is_reused:
                    raise _failure(f"opening a transaction on {self._address}", error) from error
            except BaseException:
                transaction.abandon()
                raise

    def close(self) -> None:
        """Closes all connections."""
        while self._idle:
            self._idle.pop().close()
        self._watchdog.close()

    def _open(self) -> Connection:
        slow = partial(_log.warning, "connecting to %s takes more than %s s", self._address, SLOW_SECONDS)
        try:
            with self._watchdog.limit(SLOW_SECONDS, slow):
                return psycopg.connect(
                    **self._parameters,
                    autocommit=True,
                    cursor_factory=psycopg.RawCursor,
                    # A pooler may lend another session to each transaction, without what this one prepared.
                    prepare_threshold=None,
                )
        except psycopg.Error as error:
            if error.sqlstate is None and re.search(r"\binvalid \w+ (value|number)", str(error)):
                # The library quotes the value of a parameter that it cannot use.
                raise urls.invalid("the value of a parameter, or of a variable PG…, is not valid") from None
            raise _failure(f"connecting to {self._address}", error) from error

    def _prepare(self, connection: Connection) -> str:
        """Brings the schema up to date. Returns the settings of each later transaction."""
        hang_up = partial(_hang_up, connection)
        slow = partial(_log.warning, "%s does not reply for more than %s s", self._address, SLOW_SECONDS)
        with self._watchdog.limit(LOOK_SECONDS, hang_up), self._watchdog.limit(SLOW_SECONDS, slow):
            connection.execute(_BEGIN)
            settings, missing = postgres_schema.look(connection)
            connection.execute("ROLLBACK")
        if missing:
            with self._watchdog.limit(MIGRATE_SECONDS, hang_up):
                postgres_schema.migrate(connection, settings)
        return settings


def _parameters(url: str) -> dict[str, Any]:
    """What the URL says, and what it leaves open."""
    urls.check_syntax(url)
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        # Not shown: a mistyped URL can hold a password anywhere.
        raise urls.invalid("it cannot be parsed, or has an unknown parameter") from None
    parameters = urls.settle(given, os.environ)
    for option in Conninfo.get_defaults():
        # An empty variable counts as not set, and libpq takes some of them for a value.
        variable, default = option.envvar, option.compiled
        if variable and default and os.environ.get(variable.decode()) == "":
            parameters.setdefault(option.keyword.decode(), default.decode())
    return parameters


class PostgresTransaction:
    """An open transaction, the connection that it runs on, and the clock that it runs against."""

    def __init__(self, connection: Connection, idle: list[Connection], watchdog: Watchdog) -> None:
        self._connection = connection
        self._idle = idle
        self._watchdog = watchdog
        self._limit = watchdog.after(TRANSACTION_SECONDS, partial(_hang_up, connection))

    def hashing_key(self) -> bytes:
        """The 16 bytes under which ids are hashed."""
        row = self.fetch("reading the hashing key", rows.SELECT_KEY)
        return schema.checked_key(row and row[0])

    def acquire_cutover(self) -> None:
        """Waits until no collection runs, and keeps the next one from starting."""
        self._lock(
            "a collection has held the cutover lock for more than 5 s; if that does not pass, look for it in pg_locks "
            "(locktype advisory, objid 9)",
            "SELECT pg_advisory_xact_lock_shared(9)",
        )

    def acquire_replica(self, replica: UUID) -> None:
        """Waits until no other flush of this replica runs."""
        self._lock(
            f"another flush of replica {replica} has not ended within 5 s; make sure that no second process runs under "
            "this id",
            "SELECT pg_advisory_xact_lock(9, $1)",
            lock_key(replica),
        )

    def read(self, replica: UUID) -> Stored:
        """What is stored of a replica."""
        return rows.stored(self.fetch("reading the stored usage", rows.READ, replica))

    def upsert(self, replica: UUID, update: Update) -> None:
        """Inserts or updates the replica's row."""
        statement, arguments = rows.write(update, _INSERT, _UPDATE, _UPDATE_REQUESTS)
        if self.fetch("writing usage", statement, replica, *arguments) is None:
            raise rows.old_flush(replica, update.flush)

    def commit(self) -> None:
        """Commits. Only an ordinary error reply says for certain that nothing was applied."""
        try:
            self._connection.execute("COMMIT")
        except psycopg.Error as error:
            self.abandon()
            code = error.sqlstate
            if code is None or code.startswith(_UNCERTAIN) or error.diag.severity_nonlocalized != "ERROR":
                raise CommitUnknownError(_cause(error)) from error
            raise _failure("committing", error) from error
        self._give_back()

    def rollback(self) -> None:
        """Rolls back; a connection that cannot is closed."""
        try:
            self._connection.execute("ROLLBACK")
        except psycopg.Error:
            self.abandon()
        else:
            self._give_back()

    def abandon(self) -> None:
        """Closes the connection: its state is not known."""
        self._watchdog.call_off(self._limit)
        self._connection.close()

    def fetch(self, action: str, statement: str, *arguments: Any) -> Any:
        """Runs a statement that answers at most one row."""
        try:
            return self._connection.execute(statement, arguments).fetchone()
        except psycopg.Error as error:
            raise _failure(action, error) from error

    def _lock(self, conflict: str, statement: str, *arguments: Any) -> None:
        try:
            self._connection.execute(statement, arguments)
        except psycopg.errors.LockNotAvailable as error:
            raise ConflictError(conflict) from error
        except psycopg.Error as error:
            raise _failure("taking a lock", error) from error

    def _give_back(self) -> None:
        self._watchdog.call_off(self._limit)
        self._idle.append(self._connection)


def _hang_up(connection: Connection) -> None:
    """Ends the wait for a server that says nothing more: the driver sees its connection broken."""
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as other_end:
        other_end.shutdown(socket.SHUT_RDWR)


def lock_key(replica: UUID) -> int:
    """A replica's lock has two integers for a key, 9 and this one, as in the Rust host."""
    words = (int.from_bytes(replica.bytes[start : start + 4], signed=True) for start in range(0, 16, 4))
    return reduce(xor, words)


def _cause(error: psycopg.Error) -> str:
    return error.diag.message_primary or str(error).strip()


def _failure(action: str, error: psycopg.Error) -> BoundaryUsageError:
    """The error of a statement: nothing is applied. Classes are those of the manual's appendix of error codes."""
    code = error.sqlstate or ""
    what = f"{action} failed: {_cause(error)}"
    if code in ("55P03", "40P01", "40001"):
        return ConflictError(f"{what}: another transaction was in the way; it is tried again")
    if code == "42501":
        return RefusedError(f"{what}; grant the role boundary_usage_replica")
    # A statement's time limit, a standby, a session ended because it was idle: these pass.
    if code not in ("57014", "25006", "25P03", "25P04") and code[:2] in ("22", "23", "25", "42"):
        return RefusedError(f"{what} ({code})")
    return UnavailableError(what)
