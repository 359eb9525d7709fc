"""A database that injects faults into another one."""

import threading
from collections import deque
from uuid import UUID

from boundary_usage import CommitUnknownError, ConflictError, Database, UnavailableError
from boundary_usage.database import Transaction
from boundary_usage.usage import StoredUsage, Update


class Faults:
    """A queue of faults, and the database that they strike.

    The faults are `begin`, `acquire`, `read`, `upsert`, `commit`, `commit-lost` and `commit-reply-lost`. Upserts wait
    until the `gate` is open, and set `upserting`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.queued: deque[str] = deque()
        self.gate = threading.Event()
        self.gate.set()
        self.upserting = threading.Event()
        self.begun = 0

    def strikes(self, step: str) -> bool:
        """Removes the next fault if it is this one; returns whether it was."""
        if self.queued and self.queued[0] == step:
            self.queued.popleft()
            return True
        return False

    def hashing_key(self) -> bytes:
        """Reads the key of the database."""
        return self._database.hashing_key()

    def begin(self) -> Transaction:
        """Begins a transaction, or fails."""
        self.begun += 1
        if self.strikes("begin"):
            raise UnavailableError("beginning failed: injected by the test")
        return FaultyTransaction(self, self._database.begin())

    def close(self) -> None:
        """Closes the database."""
        self._database.close()


class FaultyTransaction:
    """A transaction that injects faults."""

    def __init__(self, faults: Faults, transaction: Transaction) -> None:
        self._faults = faults
        self._transaction = transaction

    def acquire_cutover(self) -> None:
        """Acquires the cutover lock, or fails."""
        if self._faults.strikes("acquire"):
            raise ConflictError("the cutover lock timed out: injected by the test")
        self._transaction.acquire_cutover()

    def acquire_replica(self, replica: UUID) -> None:
        """Acquires the replica's lock."""
        self._transaction.acquire_replica(replica)

    def read(self, replica: UUID) -> StoredUsage:
        """Reads, or fails."""
        if self._faults.strikes("read"):
            raise UnavailableError("reading failed: injected by the test")
        return self._transaction.read(replica)

    def upsert(self, replica: UUID, update: Update) -> None:
        """Writes, or fails."""
        self._faults.upserting.set()
        self._faults.gate.wait()
        if self._faults.strikes("upsert"):
            raise UnavailableError("writing failed: injected by the test")
        self._transaction.upsert(replica, update)

    def commit(self) -> None:
        """Commits, fails, or loses the commit or its reply."""
        if self._faults.strikes("commit"):
            self._transaction.rollback()
            raise UnavailableError("committing failed: injected by the test")
        if self._faults.strikes("commit-lost"):
            self._transaction.rollback()
            raise CommitUnknownError("injected by the test")
        self._transaction.commit()
        if self._faults.strikes("commit-reply-lost"):
            raise CommitUnknownError("injected by the test")

    def rollback(self) -> None:
        """Rolls back."""
        self._transaction.rollback()
