"""PostgreSQL, for several replicas on any number of machines.

A flush holds the cutover lock in shared mode and the lock of its replica. Both are advisory locks of the transaction
with the keys of the Rust host, so they end with the transaction and exclude the Rust host's collections. All times are
the server's.

A flush needs six round trips and no state of its session, so it works through a transaction pooler.
"""

import logging
import os
import re
import socket
from contextlib import suppress
from functools import partial
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
from ..usage import StoredUsage, Update
from . import postgres_schema, rows, schema
from . import url as urls
from .postgres_schema import SQL, Connection
from .watchdog import Watchdog

_log = logging.getLogger("boundary_usage")

TRANSACTION_SECONDS = 30.0
"""The longest duration of a transaction.

This limit exceeds the server's own limits, and detects a server that does not reply.
"""

LOOKUP_SECONDS, MIGRATION_SECONDS = 10.0, 400.0
"""The longest durations of the schema's lookup and of its migration."""

SLOW_SECONDS = 2.0
"""The time after which a log line reports that connecting is slow."""

_UNCERTAIN = ("08", "57", "40003")
"""Codes of errors that may follow an applied commit.

These codes report that a session ended or was cancelled, or that a pooler lost its server.
"""


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
            connection = self._connect()
            try:
                self._namespace = self._migrate(connection)
            except psycopg.Error as error:
                connection.close()
                raise _failure(f"updating the database schema on {self._address}", error) from error
            except BaseException:
                connection.close()
                raise
        except BaseException:
            self._watchdog.close()
            raise
        self._idle.append(connection)

    def hashing_key(self) -> bytes:
        """Reads the 16 bytes of the key of the id hashes."""
        transaction = self._begin("begin_read")
        try:
            row = transaction.fetch("reading the hashing key", "read_hashing_key")
            self._key = schema.checked_key(row and row[0])
        finally:
            transaction.rollback()
        return self._key

    def begin(self) -> "PostgresTransaction":
        """Begins a transaction for a flush."""
        return self._begin("begin_flush")

    def close(self) -> None:
        """Closes all connections."""
        while self._idle:
            self._idle.pop().close()
        self._watchdog.close()

    def _begin(self, statement: str) -> "PostgresTransaction":
        """Begins a transaction on an idle connection.

        If all idle connections are broken, the method opens a new one.
        """
        if os.getpid() != self._process:
            raise RefusedError(
                f"process {self._process} connected to the database, and this is a fork; connect after the fork"
            )
        if self._watchdog.is_closed:
            # A tracker may flush after the database was closed, and then needs a new watchdog.
            self._watchdog = Watchdog()
        while True:
            try:
                connection, is_reused = self._idle.pop(), True
            except IndexError:
                connection, is_reused = self._connect(), False
            transaction = PostgresTransaction(connection, self._idle, self._watchdog, self._key)
            try:
                connection.execute(postgres_schema.begin(statement, self._namespace))
                return transaction
            except psycopg.Error as error:
                transaction.abandon()
                if not is_reused:
                    raise _failure(f"beginning a transaction on {self._address}", error) from error
            except BaseException:
                transaction.abandon()
                raise

    def _connect(self) -> Connection:
        slow = partial(_log.warning, "connecting to %s takes more than %s s", self._address, SLOW_SECONDS)
        try:
            with self._watchdog.limit(SLOW_SECONDS, slow):
                return psycopg.connect(
                    **self._parameters,
                    autocommit=True,
                    cursor_factory=psycopg.RawCursor,
                    # A pooler may run the next transaction in another session, which would lack a prepared statement.
                    prepare_threshold=None,
                )
        except psycopg.Error as error:
            if error.sqlstate is None and re.search(r"\binvalid \w+ (value|number)", str(error)):
                # libpq quotes the invalid value, which may contain a password.
                raise urls.invalid("the value of a parameter, or of a variable PG…, is not valid") from None
            raise _failure(f"connecting to {self._address}", error) from error

    def _migrate(self, connection: Connection) -> str:
        """Creates or updates the tables; returns the schema that has them."""
        disconnect = partial(_disconnect, connection)
        slow = partial(_log.warning, "%s has not replied for more than %s s", self._address, SLOW_SECONDS)
        with self._watchdog.limit(LOOKUP_SECONDS, disconnect), self._watchdog.limit(SLOW_SECONDS, slow):
            namespace, missing = postgres_schema.look_up(connection)
        if missing:
            with self._watchdog.limit(MIGRATION_SECONDS, disconnect):
                postgres_schema.migrate(connection, namespace)
        return namespace


def _parameters(url: str) -> dict[str, Any]:
    """Returns the connection's parameters, from the URL and the environment."""
    urls.check_syntax(url)
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        # The driver's message quotes the URL, which may contain a password anywhere.
        raise urls.invalid("it cannot be parsed, or has an unknown parameter") from None
    parameters = urls.resolve(given, os.environ)
    for option in Conninfo.get_defaults():
        # An empty variable counts as not set, but libpq would use some empty variables as values.
        variable, default = option.envvar, option.compiled
        if variable and default and os.environ.get(variable.decode()) == "":
            parameters.setdefault(option.keyword.decode(), default.decode())
    return parameters


class PostgresTransaction:
    """An open transaction, its connection, and its time limit."""

    def __init__(self, connection: Connection, idle: list[Connection], watchdog: Watchdog, key: bytes | None) -> None:
        self._connection = connection
        self._idle = idle
        self._key = key
        self._watchdog = watchdog
        self._limit = watchdog.after(TRANSACTION_SECONDS, partial(_disconnect, connection))

    def acquire_cutover(self) -> None:
        """Waits until no collection runs. No collection can start until the transaction ends."""
        self._acquire(
            "a collection has held the cutover lock for more than 5 s; if this persists, find the session in pg_locks "
            "(locktype advisory, objid 9)",
            "acquire_shared_cutover_lock",
        )

    def acquire_replica(self, replica: UUID) -> None:
        """Waits until no other flush of this replica runs."""
        self._acquire(
            f"another flush of replica {replica} has run for more than 5 s; make sure that no second process uses this "
            "replica id",
            "acquire_replica_lock",
            replica,
        )

    def read(self, replica: UUID) -> StoredUsage:
        """Reads the stored usage of a replica."""
        row = self.fetch("reading the stored usage", "read_usage", replica)
        # The component hashed its ids with the first key. With another key, known ids would count twice.
        if self._key is not None and schema.checked_key(row[-1]) != self._key:
            what = "the database was replaced by one with another hashing key"
            raise RefusedError(f"{what}; connect to the right one, or restart this process to use the new one")
        return rows.stored(row)

    def upsert(self, replica: UUID, update: Update) -> None:
        """Inserts or updates the replica's row."""
        statement, arguments = rows.write(replica, update)
        if self.fetch("writing usage", statement, *arguments) is None:
            raise rows.old_flush(replica, update.flush)

    def commit(self) -> None:
        """Commits. Only an ordinary error reply proves that nothing was applied."""
        try:
            self._connection.execute("COMMIT")
        except psycopg.Error as error:
            self.abandon()
            code = error.sqlstate
            if code is None or code.startswith(_UNCERTAIN) or error.diag.severity_nonlocalized != "ERROR":
                raise CommitUnknownError(_cause(error)) from error
            raise _failure("committing", error) from error
        self._return_connection()

    def rollback(self) -> None:
        """Rolls back, and closes the connection if that fails."""
        try:
            self._connection.execute("ROLLBACK")
        except psycopg.Error:
            self.abandon()
        else:
            self._return_connection()

    def abandon(self) -> None:
        """Closes the connection, because its state is unknown."""
        self._watchdog.cancel(self._limit)
        self._connection.close()

    def fetch(self, action: str, statement: str, *arguments: Any) -> Any:
        """Runs a statement that returns at most one row, and returns that row."""
        try:
            return self._connection.execute(SQL[statement], arguments).fetchone()
        except psycopg.Error as error:
            raise _failure(action, error) from error

    def _acquire(self, conflict: str, statement: str, *arguments: Any) -> None:
        try:
            self._connection.execute(SQL[statement], arguments)
        except psycopg.errors.LockNotAvailable as error:
            raise ConflictError(conflict) from error
        except psycopg.Error as error:
            raise _failure("acquiring a lock", error) from error

    def _return_connection(self) -> None:
        self._watchdog.cancel(self._limit)
        self._idle.append(self._connection)


def _disconnect(connection: Connection) -> None:
    """Ends the wait for a server that does not reply.

    This shuts the connection down, so the driver's call fails.
    """
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as other_end:
        other_end.shutdown(socket.SHUT_RDWR)


def _cause(error: psycopg.Error) -> str:
    return error.diag.message_primary or str(error).strip()


def _failure(action: str, error: psycopg.Error) -> BoundaryUsageError:
    """Converts the error of a failed statement, which has changed nothing.

    The codes are in the appendix "PostgreSQL Error Codes" of the manual.
    """
    code = error.sqlstate or ""
    what = f"{action} failed: {_cause(error)}"
    if code in ("55P03", "40P01", "40001"):
        return ConflictError(f"{what}; another transaction interfered, and the next flush tries again")
    if code == "42501":
        return RefusedError(f"{what}; grant the role boundary_usage_replica")
    # A server in recovery refuses to begin a transaction that writes. The code has other meanings, too, but not for
    # this function of the server, which checks settings.
    if code == "0A000" and error.diag.source_function == "call_bool_check_hook":
        hint = "the server is a read-only standby; connect to the primary, or promote this server"
        return UnavailableError(f"{what}: {hint}")
    # These codes are temporary: a statement exceeded its time limit, the transaction is read-only, or a session was
    # idle for too long.
    if code not in ("57014", "25006", "25P03", "25P04") and code[:2] in ("22", "23", "25", "42"):
        return RefusedError(f"{what} ({code})")
    return UnavailableError(what)
