"""All hosts create the same tables, and refuse those of an unknown release."""

import sqlite3
from pathlib import Path

import psycopg
import pytest
from real_parts import Program, new_postgres

from boundary_usage import ConfigurationError, RefusedError, connect

SQLITE_TABLES = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
MIGRATIONS = "SELECT version, description, success, checksum, execution_time >= -1 FROM boundary_usage_migrations"
POSTGRES_COLUMNS = """
    SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
    WHERE table_schema = 'public' ORDER BY table_name, ordinal_position"""


def create_with_program(url: str, directory: Path) -> None:
    """Creates the tables with the Rust host: `replay` of an empty file creates them."""
    empty = directory / "empty.jsonl"
    empty.touch()
    Program(url).json("replay", str(empty))


def test_all_hosts_create_the_same_sqlite_tables(sqlite_url: str, tmp_path: Path) -> None:
    other = sqlite_url.replace("usage.db", "other.db")
    connect(sqlite_url).close()
    create_with_program(other, tmp_path)

    def tables(url: str) -> list[object]:
        with sqlite3.connect(url.removeprefix("sqlite:")) as connection:
            words = [(kind, name, " ".join(sql.split())) for kind, name, sql in connection.execute(SQLITE_TABLES)]
            return [*words, *connection.execute(MIGRATIONS)]

    assert tables(sqlite_url) == tables(other)
    # The Rust host accepts the tables.
    assert Program(sqlite_url).json("status")["rows"] == []


def test_all_hosts_create_the_same_postgres_tables(postgres_url: str, tmp_path: Path) -> None:
    other = new_postgres()
    connect(postgres_url).close()
    create_with_program(other, tmp_path)

    def tables(url: str) -> list[object]:
        with psycopg.connect(url) as connection:
            return [
                *connection.execute(POSTGRES_COLUMNS).fetchall(),
                *connection.execute(MIGRATIONS.encode()).fetchall(),
            ]

    assert tables(postgres_url) == tables(other)
    assert Program(postgres_url).json("status")["rows"] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("UPDATE boundary_usage_migrations SET version = 99 WHERE version = 2", "version 99.*use a newer release"),
        ("UPDATE boundary_usage_migrations SET checksum = 'x' WHERE version = 1", "made by a different release"),
        ("DELETE FROM boundary_usage_deployment", "no key of 16 bytes"),
    ],
)
def test_an_unknown_schema_is_refused(url: str, change: str, message: str) -> None:
    connect(url).close()
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:")) as connection:
            connection.execute(change)
    else:
        with psycopg.connect(url) as connection:
            connection.execute(change.encode())
    with pytest.raises(RefusedError, match=message):
        connect(url).hashing_key()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hunter2",
        "mysql://u:hunter2@h/d",
        "sqlite:",
        "sqlite::memory:",
        "sqlite://u:hunter2@h/d",
        "postgres://h:hunter2/d",
        "postgres://127.0.0.1/d?sslmode=hunter2",
        "postgres://h/d?hunter2=1",
    ],
)
def test_an_invalid_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        connect(url)
    assert "hunter2" not in str(refused.value)
