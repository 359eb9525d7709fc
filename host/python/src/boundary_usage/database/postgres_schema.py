"""The schema of PostgreSQL that has the tables, and their migration.

The tables are in one schema: the one on the search path that has them, or the first one on the search path if they are
missing. Every transaction sets its search path to that schema. So neither the search path of the session nor a schema
that is created later can lead a statement to other tables.
"""

from typing import Any

import psycopg

from ..errors import RefusedError
from . import schema
from .statements import read_statements

SQL = {name: text.encode() for name, text in read_statements("postgres").items()}
"""The statements by their names, as bytes.

The driver's type annotations accept no `str` except literals.
"""

Connection = psycopg.Connection[Any]


def begin(name: str, namespace: str) -> bytes:
    """Returns the statements that begin a transaction on the tables of a schema."""
    quoted = '"' + namespace.replace('"', '""') + '"'
    return SQL[name] + SQL["set_transaction"].replace(b':"schema"', quoted.encode())


def look_up(connection: Connection) -> tuple[str, list[schema.Migration]]:
    """Returns the schema of the tables, and the migrations that they lack."""
    connection.execute(SQL["begin_lookup"])
    found = connection.execute(SQL["find_schema"]).fetchone()
    connection.execute("ROLLBACK")
    assert found is not None, "the statement returns one row"
    namespace = _namespace(*found)
    applied = []
    if found[0]:
        connection.execute(begin("begin_read", namespace))
        applied = connection.execute(SQL["read_migrations"]).fetchall()
        connection.execute("ROLLBACK")
    return namespace, schema.missing(schema.migrations("postgres"), applied)


def _namespace(on_path: list[str], elsewhere: list[str], first: str | None, search_path: str, is_chosen: bool) -> str:
    """Chooses the schema from the row of `find_schema`.

    The rules are in `docs/operating.md`.
    """
    if len(on_path) == 1:
        return on_path[0]
    hint = (
        "set search_path to the schema that is meant (ALTER ROLE … SET search_path = …, "
        "or options=-csearch_path%3D… in the URL)"
    )
    if on_path:
        what = (
            f"the search path ({search_path}) leads to several sets of tables, in the schemas {' and '.join(on_path)}"
        )
        raise RefusedError(f"{what}, and each may hold a part of the usage; {hint}")
    if first is None:
        raise RefusedError(f"no schema on the search path ({search_path}) can hold the tables; create one, and {hint}")
    if elsewhere and not is_chosen:
        what = f"the tables are in the schema {' and in '.join(elsewhere)}"
        raise RefusedError(f"{what}, which is not on the search path of this role ({search_path}); {hint}")
    return first


def migrate(connection: Connection, namespace: str) -> None:
    """Applies the migrations that are missing."""
    known = schema.migrations("postgres")
    try:
        connection.execute(begin("begin_migration", namespace))
        # One process at a time migrates, and no flush runs meanwhile.
        connection.execute(SQL["acquire_exclusive_cutover_lock"])
        connection.execute(SQL["create_migrations_table"])
        # Another process may have migrated since the lookup.
        applied = connection.execute(SQL["read_migrations"]).fetchall()
        for migration in schema.missing(known, applied):
            connection.execute(migration.sql.encode())
            arguments = (migration.version, migration.name, migration.checksum)
            connection.execute(SQL["record_migration"], arguments)
        connection.execute(SQL["insert_hashing_key"], (schema.random_key(),))
        connection.execute("COMMIT")
    except psycopg.errors.InsufficientPrivilege as error:
        what = "the schema of the database is out of date, and this role may not change it"
        raise RefusedError(f"{what}; connect once as the owner of the database, then run roles.sql") from error
