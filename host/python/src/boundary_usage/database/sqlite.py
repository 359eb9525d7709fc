"""SQLite, embedded, for the processes of one machine.

A flush begins by acquiring SQLite's only write lock, which excludes collections and other flushes. So its transaction
has the effect of both locks of the contract from the start.
"""

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
from ..usage import StoredUsage, Update
from . import rows, schema
from . import url as urls
from .statements import read_statements

SQL = read_statements("sqlite")
"""The statements, by their names."""

BUSY_SECONDS = 5.0
"""The longest wait for another writer."""

_SETUP_RETRY_SECONDS = 0.02
"""The wait for another process that is setting up a new file."""


class Sqlite:
    """A SQLite file."""

    def __init__(self, url: str) -> None:
        parsed = urls.sqlite(url)
        self._path, self._creates = parsed.path, parsed.creates
        self._process = os.getpid()
        self._idle: list[OpenFile] = []
        self._key: bytes | None = None
        self._idle.append(self._open())

    def hashing_key(self) -> bytes:
        """Reads the 16 bytes of the key of the id hashes."""
        file = self._take()
        try:
            self._key = self._read_key(file)
        except BaseException:
            file.connection.close()
            raise
        self._idle.append(file)
        return self._key

    def begin(self) -> "SqliteTransaction":
        """Begins a transaction for a flush; waits for other writers."""
        file = self._take()
        try:
            file.connection.execute(SQL["begin_flush"])
            file.check()
        except sqlite3.Error as error:
            file.connection.close()
            raise _failure("beginning a transaction", self._path, error) from error
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
                # The next flush opens the file that is then at the path.
                file.connection.close()
                raise
            return file
        return self._open()

    def _open(self) -> "OpenFile":
        """Opens the file.

        Enabling the write-ahead log needs a lock for which SQLite does not wait, so this method waits instead.
        """
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return self._try_open()
            except ConflictError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_SETUP_RETRY_SECONDS)

    def _try_open(self) -> "OpenFile":
        mode = "rwc" if self._creates else "rw"
        if not self._creates and not self._path.exists():
            raise UnavailableError(f"there is no file `{self._path}`, and `mode=rw` does not create one")
        connection: sqlite3.Connection | None = None
        before = _identity(self._path)
        try:
            # Several threads use a connection, but only one at a time.
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
            self._migrate(connection)
            # The component uses the key of the first connection. With another key, known ids would count twice.
            if self._key is not None and self._read_key(file) != self._key:
                what = f"`{self._path}` was replaced by a database with another hashing key"
                raise RefusedError(f"{what}; put the right file back, or restart this process to use the new one")
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            raise _failure("opening the database file", self._path, error) from error
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        return file

    def _read_key(self, file: "OpenFile") -> bytes:
        try:
            row = file.connection.execute(SQL["read_hashing_key"]).fetchone()
        except sqlite3.Error as error:
            raise _failure("reading the hashing key", self._path, error) from error
        return schema.checked_key(row and row[0])

    def _migrate(self, connection: sqlite3.Connection) -> None:
        """Creates or updates the tables, if necessary."""
        known = schema.migrations("sqlite")
        if not schema.missing(known, _applied(connection)):
            return
        connection.execute(SQL["begin_migration"])
        connection.execute(SQL["create_migrations_table"])
        # Another process may have migrated before the transaction began.
        for migration in schema.missing(known, _applied(connection)):
            for statement in _statements(migration.sql):
                connection.execute(statement)
            arguments = (migration.version, migration.name, migration.checksum)
            connection.execute(SQL["record_migration"], arguments)
        # A new file gets the key of the deleted file, if this process knows it.
        connection.execute(SQL["insert_hashing_key"], (self._key or schema.random_key(),))
        connection.execute("COMMIT")


class OpenFile:
    """A connection and the identity of its file.

    The path may lead to another file later.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, before: tuple[int, int] | None) -> None:
        self.connection = connection
        self.path = path
        self._file = _identity(path)
        if self._file is None or before not in (None, self._file):
            raise UnavailableError(f"`{path}` was deleted or replaced while it was opened")

    def check(self) -> None:
        """Raises `UnavailableError` if the path leads to another file or to none.

        Writes to the old file would be lost.
        """
        found = _identity(self.path)
        if found != self._file:
            what = "deleted" if found is None else "replaced"
            raise UnavailableError(
                f"`{self.path}` was {what} while it was open; unflushed usage is kept, and the next flush opens the "
                "file that is there then"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    """Returns device and inode.

    The function does not open the file, because closing the file would release SQLite's locks.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnavailableError(f"cannot check whether `{path}` is still the open file: {error}") from error
    return status.st_dev, status.st_ino


def _applied(connection: sqlite3.Connection) -> list[tuple[int, bytes]]:
    if connection.execute(SQL["find_migrations_table"]).fetchone() is None:
        return []
    return connection.execute(SQL["read_migrations"]).fetchall()


def _statements(script: str) -> list[str]:
    """Splits a migration into statements.

    The driver's `executescript` would commit the transaction first.
    """
    statements, statement = [], ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            statements.append(statement)
            statement = ""
    return statements


class SqliteTransaction:
    """An open transaction and its connection."""

    def __init__(self, file: OpenFile, idle: list[OpenFile]) -> None:
        self._file = file
        self._connection = file.connection
        self._path = file.path
        self._idle = idle

    def acquire_cutover(self) -> None:
        """Does nothing: the transaction has excluded collections since it began."""

    def acquire_replica(self, replica: UUID) -> None:
        """Does nothing: the transaction has excluded other flushes since it began."""

    def read(self, replica: UUID) -> StoredUsage:
        """Reads the stored usage of a replica."""
        return rows.stored(self._fetch("reading the stored usage", "read_usage", str(replica)))

    def upsert(self, replica: UUID, update: Update) -> None:
        """Inserts or updates the replica's row."""
        statement, arguments = rows.write(str(replica), update)
        self._fetch("writing usage", statement, *arguments)
        if self._fetch("writing usage", "record_flush", str(replica), update.flush) is None:
            raise rows.old_flush(replica, update.flush)

    def commit(self) -> None:
        """Commits.

        After a failed write, the commit may still be in the log, from which the next process would apply it.
        """
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
        """Rolls back, and closes the connection if that fails."""
        try:
            self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._connection.close()
        else:
            self._idle.append(self._file)

    def _fetch(self, action: str, statement: str, *arguments: Any) -> Any:
        try:
            return self._connection.execute(SQL[statement], arguments).fetchone()
        except sqlite3.Error as error:
            raise _failure(action, self._path, error) from error


def _code(error: sqlite3.Error) -> int | None:
    """Returns the primary result code, or `None` if the driver itself failed."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _failure(action: str, path: Path, error: sqlite3.Error) -> BoundaryUsageError:
    """Converts the error of a failed statement, which has changed nothing."""
    what = f"{action} failed: `{path}`: {error}"
    match _code(error):
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return ConflictError(f"{action} failed: another transaction has held `{path}` for more than 5 s")
        case sqlite3.SQLITE_CANTOPEN:
            return UnavailableError(f"{what}; make sure that this user may write the file and its directory")
        case sqlite3.SQLITE_INTERRUPT | sqlite3.SQLITE_IOERR | sqlite3.SQLITE_FULL:
            return UnavailableError(what)
        case _:
            return RefusedError(what)
