"""SQLite: embedded, for the processes of one machine. A transaction has the file to itself from its beginning."""

import sqlite3
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from ..errors import (
    BoundaryUsageError,
    CommitUnknownError,
    ConfigurationError,
    ConflictError,
    RefusedError,
    UnavailableError,
)
from ..usage import Stored, Update
from . import rows, schema

BUSY_SECONDS = 5.0
"""How long to wait for another writer."""

_SET_UP_RETRY_SECONDS = 0.02
"""How long to wait before a new file is tried again that another process is just setting up."""

_CREATE_MIGRATIONS = """
    CREATE TABLE IF NOT EXISTS boundary_usage_migrations (
        version BIGINT PRIMARY KEY,
        description TEXT NOT NULL,
        installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
        success BOOLEAN NOT NULL,
        checksum BLOB NOT NULL,
        execution_time BIGINT NOT NULL
    )"""

_TABLE_EXISTS = "SELECT name FROM sqlite_master WHERE name = 'boundary_usage_migrations'"

_INSERT = """
    INSERT INTO boundary_usage_stats (
        replica_id, allowed_requests, denied_requests, unique_workspaces_count, unique_users_count,
        workspaces_sketch, users_sketch
    )
    SELECT ?1, ?3, ?4, ?5, ?6, ?7, ?8
    WHERE NOT EXISTS (SELECT 1 FROM boundary_usage_replicas WHERE replica_id = ?1 AND last_flush >= ?2)
    ON CONFLICT (replica_id) DO NOTHING"""


def _update(sets: str) -> str:
    return f"""
    UPDATE boundary_usage_stats SET
        allowed_requests = allowed_requests + min(?3, 9223372036854775807 - allowed_requests),
        denied_requests = denied_requests + min(?4, 9223372036854775807 - denied_requests),
        {sets}
        updated_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')
    WHERE replica_id = ?1 AND (SELECT last_flush FROM boundary_usage_replicas WHERE replica_id = ?1) < ?2"""


_UPDATE = _update("""
        unique_workspaces_count = ?5,
        unique_users_count = ?6,
        workspaces_sketch = ?7,
        users_sketch = ?8,""")

_UPDATE_REQUESTS = _update("")

_RECORD_FLUSH = """
    INSERT INTO boundary_usage_replicas (replica_id, last_flush, flushed_at)
    SELECT ?1, ?2, strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') WHERE changes() > 0
    ON CONFLICT (replica_id) DO UPDATE SET last_flush = excluded.last_flush, flushed_at = excluded.flushed_at
    RETURNING replica_id"""
"""Comes after one of those above, and answers a row if that has changed one."""


class Sqlite:
    """A SQLite file."""

    def __init__(self, url: str) -> None:
        self._path = _path(url)
        self._idle: list[sqlite3.Connection] = []
        connection = self._first_connection()
        try:
            self._bring_up_to_date(connection)
        except sqlite3.Error as error:
            raise _failure("bringing the schema up to date", self._path, error) from error
        self._idle.append(connection)

    def hashing_key(self) -> bytes:
        """The 16 bytes under which ids are hashed."""
        connection = self._take()
        try:
            row = connection.execute(rows.SELECT_KEY).fetchone()
        except sqlite3.Error as error:
            raise _failure("reading the hashing key", self._path, error) from error
        self._idle.append(connection)
        return schema.checked_key(row and row[0])

    def begin(self) -> "SqliteTransaction":
        """Opens a transaction; waits for other writers."""
        connection = self._take()
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            connection.close()
            raise _failure("opening a transaction", self._path, error) from error
        return SqliteTransaction(connection, self._path, self._idle)

    def close(self) -> None:
        """Closes all connections."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            return self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            # A tracker's thread is not the one that connects; no two threads use a connection at once.
            connection = sqlite3.connect(
                self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error as error:
            raise _failure("opening the database file", self._path, error) from error
        return connection

    def _first_connection(self) -> sqlite3.Connection:
        """To turn the write-ahead log on takes the file for oneself, and SQLite does not wait for that by itself."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return self._open()
            except ConflictError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_SET_UP_RETRY_SECONDS)

    def _bring_up_to_date(self, connection: sqlite3.Connection) -> None:
        known = schema.migrations("sqlite")
        if not schema.missing(known, _applied(connection)):
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(_CREATE_MIGRATIONS)
            # Looked up again: another process may have migrated since.
            for migration in schema.missing(known, _applied(connection)):
                for statement in _statements(migration.sql):
                    connection.execute(statement)
                applied = (migration.version, migration.name, migration.checksum)
                connection.execute(rows.INSERT_APPLIED, applied)
            connection.execute(rows.INSERT_KEY, (schema.random_key(),))
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise


def _applied(connection: sqlite3.Connection) -> list[tuple[int, bytes]]:
    if connection.execute(_TABLE_EXISTS).fetchone() is None:
        return []
    return connection.execute(rows.SELECT_APPLIED).fetchall()


def _statements(script: str) -> list[str]:
    """A script's statements; the driver's own way to run a script would commit the transaction first."""
    statements, statement = [], ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            statements.append(statement)
            statement = ""
    return statements


class SqliteTransaction:
    """An open transaction, and the connection that it runs on."""

    def __init__(self, connection: sqlite3.Connection, path: Path, idle: list[sqlite3.Connection]) -> None:
        self._connection = connection
        self._path = path
        self._idle = idle

    def acquire_cutover(self) -> None:
        """The transaction holds everything since it began."""

    def acquire_replica(self, replica: UUID) -> None:
        """The transaction holds everything since it began."""

    def read(self, replica: UUID) -> Stored:
        """What is stored of a replica."""
        return rows.stored(self._fetch("reading the stored usage", rows.READ, str(replica)))

    def upsert(self, replica: UUID, update: Update) -> None:
        """Inserts or updates the replica's row."""
        statement, arguments = rows.write(update, _INSERT, _UPDATE, _UPDATE_REQUESTS)
        self._fetch("writing usage", statement, str(replica), *arguments)
        if self._fetch("writing usage", _RECORD_FLUSH, str(replica), update.flush) is None:
            raise rows.old_flush(replica, update.flush)

    def commit(self) -> None:
        """Commits. A write that failed may have reached the log all the same, for the next process to find."""
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._connection.close()
            if _code(error) in (None, sqlite3.SQLITE_IOERR):
                raise CommitUnknownError(f"`{self._path}`: {error}") from error
            raise _failure("committing", self._path, error) from error
        self._idle.append(self._connection)

    def rollback(self) -> None:
        """Rolls back; a connection that cannot is closed."""
        try:
            self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._connection.close()
        else:
            self._idle.append(self._connection)

    def _fetch(self, action: str, statement: str, *arguments: Any) -> Any:
        try:
            return self._connection.execute(statement, arguments).fetchone()
        except sqlite3.Error as error:
            raise _failure(action, self._path, error) from error


def _path(url: str) -> Path:
    rest = url.removeprefix("sqlite:")
    if rest.startswith("//") and "@" in rest[2:].partition("/")[0]:
        raise ConfigurationError("a SQLite URL has no user, password or host; expected `sqlite:PATH`")
    rest = rest.removeprefix("//")
    if not rest or rest.startswith((":memory:", "file:")) or "?" in rest:
        raise ConfigurationError("a SQLite database must be a file, and takes no parameters; expected `sqlite:PATH`")
    path = Path(rest)
    if not path.parent.is_dir():
        raise ConfigurationError(f"there is no directory `{path.parent}`; create it, or correct the path")
    return path


def _code(error: sqlite3.Error) -> int | None:
    """The primary result code; none when the driver itself has failed."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _failure(action: str, path: Path, error: sqlite3.Error) -> BoundaryUsageError:
    """The error of a statement: nothing is applied."""
    what = f"{action} failed: `{path}`: {error}"
    match _code(error):
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return ConflictError(f"{action} failed: another transaction has held `{path}` for more than 5 s")
        case sqlite3.SQLITE_CANTOPEN:
            return UnavailableError(f"{what}; see that this user may write the file and its directory")
        case sqlite3.SQLITE_INTERRUPT | sqlite3.SQLITE_IOERR | sqlite3.SQLITE_FULL:
            return UnavailableError(what)
        case _:
            return RefusedError(what)
