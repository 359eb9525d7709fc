"""What both kinds of database read and say in the same way."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from ..errors import ConflictError
from ..usage import Delta, Stored, Unchanged, Uniques, UniqueSet, Update

READ = """
    SELECT r.last_flush, s.unique_workspaces_count, s.unique_users_count, s.workspaces_sketch, s.users_sketch
    FROM (SELECT $1 AS replica_id) AS asked
    LEFT JOIN boundary_usage_replicas AS r ON r.replica_id = asked.replica_id
    LEFT JOIN boundary_usage_stats AS s ON s.replica_id = asked.replica_id"""
"""Always one row: its columns are null where there is nothing."""

SELECT_KEY = "SELECT hashing_key FROM boundary_usage_deployment"

INSERT_KEY = "INSERT INTO boundary_usage_deployment (hashing_key) VALUES ($1) ON CONFLICT DO NOTHING"

SELECT_APPLIED = "SELECT version, checksum FROM boundary_usage_migrations ORDER BY version"

INSERT_APPLIED = """
    INSERT INTO boundary_usage_migrations (version, description, success, checksum, execution_time)
    VALUES ($1, $2, TRUE, $3, -1)"""


def stored(row: Sequence[Any]) -> Stored:
    """What `READ` answers."""
    last_flush, workspaces, users, workspaces_sketch, users_sketch = row
    if workspaces is None:
        return Stored(last_flush or 0, None)
    uniques = Uniques(UniqueSet(workspaces, bytes(workspaces_sketch)), UniqueSet(users, bytes(users_sketch)))
    return Stored(last_flush or 0, uniques)


def write(update: Update, insert: str, change: str, change_requests: str) -> tuple[str, list[Any]]:
    """Which of the statements writes an update, and its arguments behind the replica."""
    arguments: list[Any] = [update.flush, update.allowed, update.denied]
    if isinstance(update.uniques, Unchanged):
        return change_requests, arguments
    workspaces, users = update.uniques.uniques.workspaces, update.uniques.uniques.users
    arguments += [workspaces.count, users.count, workspaces.sketch, users.sketch]
    return insert if isinstance(update.uniques, Delta) else change, arguments


def old_flush(replica: UUID, flush: int) -> ConflictError:
    """A flush that is not newer than the replica's last one."""
    what = f"flush {flush} of replica {replica} was written before, or a later one was"
    return ConflictError(f"{what}; make sure that no second process runs under this id")
