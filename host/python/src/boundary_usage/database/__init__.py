"""The database, in the words of the domain. The SQL is in `sqlite` and `postgres` and nowhere else.

Both keep to the schema and to the locks of the Rust host, so that replicas of either can share a database. Collections
are not here: they need authority that a proxy does not have.
"""

from typing import Protocol
from uuid import UUID

from ..errors import ConfigurationError
from ..usage import Stored, Update
from .url import EXPECTED


class Transaction(Protocol):
    """An open transaction. After an error it can only be rolled back."""

    def acquire_cutover(self) -> None:
        """Waits until no collection runs, and keeps the next one from starting."""

    def acquire_replica(self, replica: UUID) -> None:
        """Waits until no other flush of this replica runs."""

    def read(self, replica: UUID) -> Stored:
        """What is stored of a replica."""

    def upsert(self, replica: UUID, update: Update) -> None:
        """Inserts or updates the replica's row, as the update says, and records the flush as its last.

        `ConflictError`, and nothing written, when the flush is not newer than the last one, or when a row to insert is
        there already, or one to update is not.
        """

    def commit(self) -> None:
        """Commits. `CommitUnknownError` when no reply came; after any other error nothing is applied."""

    def rollback(self) -> None:
        """Rolls back; never fails."""


class Database(Protocol):
    """A database that holds usage."""

    def hashing_key(self) -> bytes:
        """The 16 bytes under which ids are hashed."""

    def begin(self) -> Transaction:
        """Opens a transaction for a flush."""

    def close(self) -> None:
        """Closes all connections."""


def connect(url: str) -> Database:
    """Connects to a database by its URL, and brings its schema up to date.

    `sqlite:PATH` is a file, created when missing, which several processes of one machine can share;
    `postgres://USER:PASSWORD@HOST:PORT/DATABASE` is for several replicas, and needs the extra `postgres`.
    """
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        from .sqlite import Sqlite

        return Sqlite(url)
    if scheme in ("postgres", "postgresql"):
        try:
            from .postgres import Postgres
        except ImportError as error:
            raise ConfigurationError("PostgreSQL needs psycopg; install boundary-usage[postgres]") from error
        return Postgres(url)
    # Not shown: anything else could be a password.
    raise ConfigurationError(f"the database URL names no kind of database; {EXPECTED}")
