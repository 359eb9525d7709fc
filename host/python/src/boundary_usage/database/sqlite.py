"""SQLite: embedded, for the processes of one machine. A transaction has the file to itself from its beginning."""

import os
import sqlite3
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from ..errors import (
    BoundaryUsageError,
    CommitUnknownError,
    ConflictError,
    RefusedError,
    UnavailableError,
)
from ..usage import Stored, Update
from . import rows, schema
from . import url as urls

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
        named = urls.sqlite(url)
        self._path, self._creates = named.path, named.creates
        self._process = os.getpid()
        self._idle: list[OpenFile] = []
        self._key: bytes | None = None
        self._idle.append(self._first_connection())

    def hashing_key(self) -> bytes:
        """The 16 bytes under which ids are hashed."""
        file = self._take()
        try:
            self._key = self._read_key(file)
        except BaseException:
            file.connection.close()
            raise
        self._idle.append(file)
        return self._key

    def begin(self) -> "SqliteTransaction":
        """Opens a transaction; waits for other writers."""
        file = self._take()
        try:
            file.connection.execute("BEGIN IMMEDIATE")
            file.check()
        except sqlite3.Error as error:
            file.connection.close()
            raise _failure("opening a transaction", self._path, error) from error
        except BaseException:
            file.connection.close()
            raise
        return SqliteTransaction(file, self._idle)

    def close(self) -> None:
        """Closes all connections."""
        while self._idle:
            self._idle.pop().connection.close()

    def _take(self) -> "OpenFile":
        if os.getpid() != self._process:
            raise RefusedError(
                f"process {self._process} opened the database, and this is a fork; connect after the fork"
            )
        while self._idle:
            file = self._idle.pop()
            try:
                file.check()
            except UnavailableError:
                # The file that is there now is opened by the next flush.
                file.connection.close()
                raise
            return file
        return self._first_connection()

    def _open(self) -> "OpenFile":
        mode = "rwc" if self._creates else "rw"
        if not self._creates and not self._path.exists():
            raise UnavailableError(f"there is no file `{self._path}`, and `mode=rw` does not create one")
        connection: sqlite3.Connection | None = None
        before = _identity(self._path)
        try:
            # A tracker's thread is not the one that connects; no two threads use a connection at once.
            connection = sqlite3.connect(
                f"{self._path.as_uri()}?mode={mode}",
                uri=True,
                timeout=BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute("PRAGMA synchronous = FULL")
            file = OpenFile(connection, self._path, before)
            self._bring_up_to_date(connection)
            # The component has hashed its ids under this key; under another one they would count twice.
            if self._key is not None and self._read_key(file) != self._key:
                what = f"`{self._path}` was replaced by a database with another hashing key"
                raise RefusedError(f"{what}; put the right file back, or start again")
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            raise _failure("opening the database file", self._path, error) from error
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        return file

    def _first_connection(self) -> "OpenFile":
        """To turn the write-ahead log on takes the file for oneself, and SQLite does not wait for that by itself."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return self._open()
            except ConflictError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_SET_UP_RETRY_SECONDS)

    def _read_key(self, file: "OpenFile") -> bytes:
        try:
            row = file.connection.execute(rows.SELECT_KEY).fetchone()
        except sqlite3.Error as error:
            raise _failure("reading the hashing key", self._path, error) from error
        return schema.checked_key(row and row[0])

    def _bring_up_to_date(self, connection: sqlite3.Connection) -> None:
        known = schema.migrations("sqlite")
        if not schema.missing(known, _applied(connection)):
            return
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_CREATE_MIGRATIONS)
        # Looked up again: another process may have migrated since.
        for migration in schema.missing(known, _applied(connection)):
            for statement in _statements(migration.sql):
                connection.execute(statement)
            connection.execute(rows.INSERT_APPLIED, (migration.version, migration.name, migration.checksum))
        # A file that was deleted is created again with its key.
        connection.execute(rows.INSERT_KEY, (self._key or schema.random_key(),))
        connection.execute("COMMIT")


class OpenFile:
    """A connection, and which file it has open: the path may lead to another one later."""

    def __init__(self, connection: sqlite3.Connection, path: Path, before: tuple[int, int] | None) -> None:
        self.connection = connection
        self.path = path
        self._file = _identity(path)
        if self._file is None or before not in (None, self._file):
            raise UnavailableError(f"`{path}` was deleted or replaced while it was opened")

    def check(self) -> None:
        """Raises if the path leads to another file, or to none: what is written would be lost."""
        found = _identity(self.path)
        if found != self._file:
            what = "deleted" if found is None else "replaced"
            raise UnavailableError(
                f"`{self.path}` was {what} while it was open; usage is kept, and the next flush opens the file that is "
                "there then"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode. The file is not opened: closing it would drop SQLite's locks."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnavailableError(f"cannot see whether `{path}` is still the file that is open: {error}") from error
    return status.st_dev, status.st_ino


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

    def __init__(self, file: OpenFile, idle: list[OpenFile]) -> None:
        self._file = file
        self._connection = file.connection
        self._path = file.path
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
            self._file.check()
        except UnavailableError:
            self._connection.close()
            raise
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._connection.close()
            if _code(error) in (None, sqlite3.SQLITE_IOERR):
                raise CommitUnknownError(f"`{self._path}`: {error}") from error
            raise _failure("committing", self._path, error) from error
        self._idle.append(self._file)

    def rollback(self) -> None:
        """Rolls back; a connection that cannot is closed."""
        try:
            self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._connection.close()
        else:
            self._idle.append(self._file)

    def _fetch(self, action: str, statement: str, *arguments: Any) -> Any:
        try:
            return self._connection.execute(statement, arguments).fetchone()
        except sqlite3.Error as error:
            raise _failure(action, self._path, error) from error


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
