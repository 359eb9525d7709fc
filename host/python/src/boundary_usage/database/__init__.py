"""The part of a database that flushes use.

Both kinds of database use the schema, the statements and the locks of the Rust host, so replicas of all hosts can share
a database. Collections are not here, because they need authority that a proxy does not have.
"""

from typing import Protocol
from uuid import UUID

from ..errors import ConfigurationError
from ..usage import StoredUsage, Update
from .url import EXPECTED


class Transaction(Protocol):
    """An open transaction. After an error it can only be rolled back."""

    def acquire_cutover(self) -> None:
        """Waits until no collection runs. No collection can start until the transaction ends."""

    def acquire_replica(self, replica: UUID) -> None:
        """Waits until no other flush of this replica runs."""

    def read(self, replica: UUID) -> StoredUsage:
        """Reads the stored usage of a replica."""

    def upsert(self, replica: UUID, update: Update) -> None:
        """Inserts or updates the replica's row, and records the flush as its last one.

        Raises `ConflictError` and writes nothing if the flush is not newer than the last one, if a row to insert
        exists, or if a row to update is missing.
        """

    def commit(self) -> None:
        """Commits.

        Raises `CommitUnknownError` if no reply arrived. Every other error means that nothing was applied.
        """

    def rollback(self) -> None:
        """Rolls back; never fails."""


class Database(Protocol):
    """A database that stores usage."""

    def hashing_key(self) -> bytes:
        """Reads the 16 bytes of the key of the id hashes."""

    def begin(self) -> Transaction:
        """Begins a transaction for a flush."""

    def close(self) -> None:
        """Closes all connections."""


def connect(url: str) -> Database:
    """Connects to a database by its URL, and creates or updates its tables.

    `sqlite:PATH` names a file that several processes of one machine can share. A missing file is created.
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
    # The text may be a password, so the message does not contain it.
    raise ConfigurationError(f"the database URL names no supported kind of database; {EXPECTED}")
