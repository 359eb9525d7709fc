"""Where PostgreSQL has the tables, and how they come there."""

from typing import Any

import psycopg

from ..errors import RefusedError
from . import rows, schema

_LOCK_SCHEMA = "SET LOCAL lock_timeout = '60s'; SET LOCAL statement_timeout = '300s'; SELECT pg_advisory_xact_lock(9)"
"""The cutover lock, alone: one process makes the schema, and no flush runs meanwhile."""

_CREATE_MIGRATIONS = """
    CREATE TABLE IF NOT EXISTS boundary_usage_migrations (
        version BIGINT PRIMARY KEY,
        description TEXT NOT NULL,
        installed_on TIMESTAMPTZ NOT NULL DEFAULT now(),
        success BOOLEAN NOT NULL,
        checksum BYTEA NOT NULL,
        execution_time BIGINT NOT NULL
    )"""

_LOOK = """
    WITH found AS (
        SELECT n.nspname, n.nspname = ANY (current_schemas(false)) AS is_on_path
        FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relname = 'boundary_usage_migrations' AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
    ), path AS (
        SELECT nspname, place FROM unnest(current_schemas(false)) WITH ORDINALITY AS p (nspname, place)
        WHERE left(nspname::text, 3) <> 'pg_' AND nspname <> 'information_schema'
    )
    SELECT current_setting('server_version_num')::int,
        ARRAY(SELECT nspname::text FROM found WHERE is_on_path ORDER BY 1),
        ARRAY(SELECT nspname::text FROM found WHERE NOT is_on_path ORDER BY 1),
        (SELECT nspname::text FROM path ORDER BY place LIMIT 1),
        current_setting('search_path'),
        (SELECT source NOT IN ('default', 'configuration file', 'command line', 'environment variable', 'global')
            FROM pg_catalog.pg_settings WHERE name = 'search_path')"""
"""Where the tables are, or would be created, as in the Rust host. A search path that is set for the role, the database
or the connection was chosen on purpose."""

Connection = psycopg.Connection[Any]


def look(connection: Connection) -> tuple[str, list[schema.Migration]]:
    """Finds the tables, in an open transaction. Returns each transaction's settings, and the missing migrations."""
    found = connection.execute(_LOOK).fetchone()
    assert found is not None, "the statement returns one row"
    settings = _settings(found)
    connection.execute(settings.encode())
    has_tables = bool(found[1])
    applied = connection.execute(rows.SELECT_APPLIED).fetchall() if has_tables else []
    return settings, schema.missing(schema.migrations("postgres"), applied)


def _settings(found: tuple[Any, ...]) -> str:
    """What each transaction sets for itself, so that settings of the role or the database change nothing."""
    version = found[0]
    settings = [
        # The catalog is searched before it by itself; temporary tables, which come first otherwise, after it.
        'SET LOCAL search_path = "{}", pg_temp'.format(_namespace(found).replace('"', '""')),
        # What is promised must survive a crash of the server.
        "SET LOCAL synchronous_commit = on",
        "SET LOCAL bytea_output = hex",
    ]
    if version >= 170_000:
        settings.append("SET LOCAL transaction_timeout = 0")
    return "; ".join(settings)


def _namespace(found: tuple[Any, ...]) -> str:
    """The schema of the tables, by the rules of `docs/operating.md`."""
    _, on_path, elsewhere, first, search_path, is_chosen = found
    if len(on_path) == 1:
        return str(on_path[0])
    hint = (
        "set search_path to the one that is meant (ALTER ROLE … SET search_path = …, "
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
    return str(first)


def migrate(connection: Connection, settings: str) -> None:
    """Applies the migrations that are missing."""
    known = schema.migrations("postgres")
    try:
        connection.execute("BEGIN")
        connection.execute(f"{settings}; {_LOCK_SCHEMA}".encode())
        connection.execute(_CREATE_MIGRATIONS)
        # Looked up again: another process may have migrated since.
        for migration in schema.missing(known, connection.execute(rows.SELECT_APPLIED).fetchall()):
            connection.execute(migration.sql.encode())
            connection.execute(rows.INSERT_APPLIED, (migration.version, migration.name, migration.checksum))
        connection.execute(rows.INSERT_KEY, (schema.random_key(),))
        connection.execute("COMMIT")
    except psycopg.errors.InsufficientPrivilege as error:
        what = "the database's schema is not up to date, and this role may not change it"
        raise RefusedError(f"{what}; connect once as the owner of the database, then run roles.sql") from error
