"""What the component can do: the imports of its world, each with the checks that keep it to its own replica.

A component is not trusted. Nothing here knows the component's runtime; `component` translates.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from .account import Account
from .database import Database, Transaction
from .errors import BoundaryUsageError, CommitUnknownError, RefusedError, UnavailableError
from .usage import REQUESTS_MAX, Delta, Stored, Unchanged, Update

_log = logging.getLogger("boundary_usage")


class Capabilities:
    """The functions behind the instances of one tracker's component. At most one transaction is open."""

    def __init__(self, replica: UUID, database: Database) -> None:
        self.account = Account(replica)
        self._replica = replica
        self._database = database
        # Read once: a component that is replaced must not need the database for it.
        self._key = database.hashing_key()
        self._transaction: Transaction | None = None
        self._granted: set[str] = set()
        self._stored = Stored(0, None)
        self._update: Update | None = None
        self._commit_sent = False

    def flush_begins(self) -> None:
        """One commit for each flush that the host asks for."""
        self._commit_sent = False

    def flush_ends(self) -> bool:
        """Rolls back what the component left open; returns whether there was something."""
        is_open = self._transaction is not None
        self.roll_back()
        return is_open

    def resolve_doubt(self) -> None:
        """Finds out whether the flush in doubt was applied, for the successor of a component that broke."""
        try:
            self.begin(self._replica)
            self.acquire("replica", "exclusive")
            self.read()
        finally:
            self.roll_back()

    def hashing_key(self) -> tuple[int, int]:
        """The key under which ids are hashed."""
        return int.from_bytes(self._key[:8]), int.from_bytes(self._key[8:])

    def begin(self, replica: UUID) -> None:
        """Opens the transaction."""
        if replica != self._replica:
            raise RefusedError(f"replica {replica} is not the component's own")
        if self._transaction is not None:
            raise RefusedError("the component has a transaction open")
        if self._commit_sent:
            raise RefusedError("this flush has sent its commit")
        self._granted = set()
        self._update = None
        with _expected("opening a transaction"):
            self._transaction = self._database.begin()

    def acquire(self, lock: str, mode: str) -> None:
        """Takes a lock for the transaction."""
        transaction = self._open()
        if (lock, mode) == ("cutover", "shared"):
            with _expected("taking the cutover lock"):
                transaction.acquire_cutover()
        elif (lock, mode) == ("replica", "exclusive"):
            with _expected("taking the replica's lock"):
                transaction.acquire_replica(self._replica)
        elif lock == "cutover":
            raise RefusedError("only a collection holds the cutover lock alone")
        else:
            raise RefusedError("a replica's lock is exclusive")
        self._granted.add(lock)

    def read(self) -> Stored:
        """Reads what is stored of the replica."""
        transaction = self._open()
        if "replica" not in self._granted:
            raise RefusedError("to read needs the replica's lock")
        with _expected("reading the stored usage"):
            stored = transaction.read(self._replica)
        self._granted.add("read")
        self._stored = stored
        self.account.last_flush_read(stored.last_flush)
        return stored

    def upsert(self, update: Update) -> bool:
        """Writes the replica's row; returns whether it is new."""
        transaction = self._open()
        if not {"cutover", "replica", "read"} <= self._granted:
            raise RefusedError("to upsert needs the cutover lock, the replica's lock, and a read")
        if self._update is not None:
            raise RefusedError("the transaction has an upsert already")
        _check_range(update)
        new_period = isinstance(update.uniques, Delta)
        if new_period == (self._stored.uniques is not None):
            raise RefusedError("the update does not fit what was read: a delta begins a row, and all else needs one")
        self.account.check(update, self._stored)
        with _expected("writing usage"):
            transaction.upsert(self._replica, update)
        self._update = update
        return new_period

    def commit(self) -> None:
        """Ends the transaction and makes its update last."""
        transaction = self._open()
        if self._update is None:
            self.roll_back()
            raise RefusedError("there is nothing to commit")
        self._transaction = None
        self._commit_sent = True
        number = self._update.flush
        self.account.commit_sent(number)
        try:
            transaction.commit()
        except CommitUnknownError as error:
            raise self._unknown(number, str(error)) from error
        except BoundaryUsageError:
            self.account.not_committed()
            raise
        except Exception as error:
            _log.exception("committing failed unexpectedly")
            raise self._unknown(number, _unexpected(error)) from error
        self.account.committed()

    def roll_back(self) -> None:
        """Ends the transaction, if one is open, without its update."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            try:
                transaction.rollback()
            except Exception:
                _log.exception("rolling back failed unexpectedly")

    def _unknown(self, number: int, cause: str) -> CommitUnknownError:
        return CommitUnknownError(
            f"the commit of flush {number} of replica {self._replica} brought no reply, so its outcome is unknown: "
            f"{cause}; the next flush finds out, and `boundary-usage status` shows the replica's last flush"
        )

    def _open(self) -> Transaction:
        if self._transaction is None:
            raise RefusedError("the component has no transaction open")
        return self._transaction


@contextmanager
def _expected(action: str) -> Iterator[None]:
    """Makes an error of the contract of any failure: an exception that is none would trap the component."""
    try:
        yield
    except BoundaryUsageError:
        raise
    except Exception as error:
        _log.exception("%s failed unexpectedly", action)
        raise UnavailableError(f"{action} failed: {_unexpected(error)}") from error


def _unexpected(error: Exception) -> str:
    return f"unexpected {type(error).__name__}: {error}"


def _check_range(update: Update) -> None:
    """The database has no larger numbers."""
    numbers = {
        "flush number": update.flush,
        "count of allowed requests": update.allowed,
        "count of denied requests": update.denied,
    }
    if not isinstance(update.uniques, Unchanged):
        uniques = update.uniques.uniques
        numbers["count of unique ids"] = max(uniques.workspaces.count, uniques.users.count)
    for name, number in numbers.items():
        if number > REQUESTS_MAX:
            raise RefusedError(f"the component's {name} is {number}, beyond 2^63 - 1")
