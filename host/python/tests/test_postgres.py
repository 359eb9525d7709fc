"""Settings of PostgreSQL, and broken connections."""

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
from real_parts import Proxy, from_environment, query, totals, until
from scenario import uuid

from boundary_usage import (
    CommitUnknownError,
    Idle,
    RefusedError,
    Tracker,
    UnavailableError,
    Written,
    connect,
)
from boundary_usage.database import postgres


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Removes the variables of PostgreSQL."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    yield


def administer(url: str, *statements: str) -> None:
    for statement in statements:
        query(url, statement)


def name_of(url: str) -> str:
    return urlsplit(url).path[1:]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("bytea_output", "escape"),
        ("synchronous_commit", "off"),
        ("default_transaction_read_only", "on"),
        ("default_transaction_isolation", "serializable"),
        ("standard_conforming_strings", "off"),
        ("client_encoding", "SQL_ASCII"),
        ("client_min_messages", "debug5"),
        ("datestyle", "'German, YMD'"),
        ("transform_null_equals", "on"),
        ("lock_timeout", "1"),
        ("statement_timeout", "0"),
        ("search_path", "public, pg_catalog"),
        ("idle_in_transaction_session_timeout", "1"),
    ],
)
def test_settings_of_the_database_do_not_affect_flushes(postgres_url: str, setting: str, value: str) -> None:
    connect(postgres_url).close()
    server = from_environment("BOUNDARY_USAGE_TEST_POSTGRES")
    administer(server, f"ALTER DATABASE {name_of(postgres_url)} SET {setting} = {value}")
    with Tracker(uuid("r1"), connect(postgres_url), flush_interval=None) as tracker:
        for number in range(1, 4):
            tracker.track(uuid(f"w{number}"), uuid("u1"), 10, 1)
            assert tracker.flush() == Written(flush=number, new_period=number == 1)
    administer(server, f"ALTER DATABASE {name_of(postgres_url)} RESET {setting}")
    assert totals(postgres_url) == (3, 1, 30, 3)


def test_flushes_are_durable_despite_the_settings_of_the_database(postgres_url: str) -> None:
    administer(postgres_url, f"ALTER DATABASE {name_of(postgres_url)} SET synchronous_commit = off")
    database = connect(postgres_url)
    transaction = database.begin()
    setting = transaction._connection.execute("SHOW synchronous_commit").fetchone()  # type: ignore[attr-defined]
    assert setting == ("on",)
    transaction.rollback()
    database.close()


def test_flushes_need_no_session_state(postgres_url: str) -> None:
    database = connect(postgres_url)
    with Tracker(uuid("r1"), database, flush_interval=None) as tracker:
        for number in range(1, 9):
            tracker.track(uuid(f"w{number}"), uuid("u1"), 10, 1)
            assert tracker.flush() == Written(flush=number, new_period=number == 1)
            # A transaction pooler may lend another session to the next transaction.
            (connection,) = database._idle  # type: ignore[attr-defined]
            assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
            connection.execute("DISCARD ALL")
    assert totals(postgres_url) == (8, 1, 80, 8)


def test_a_decreased_flush_number_is_logged(postgres_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with Tracker(uuid("r1"), connect(postgres_url), flush_interval=None) as tracker:
        for _ in range(3):
            tracker.track(uuid("w1"), uuid("u1"), 1, 0)
            tracker.flush()
        # A failover to a lagging standby has this effect.
        administer(postgres_url, "UPDATE boundary_usage_replicas SET last_flush = 1")
        tracker.track(uuid("w1"), uuid("u1"), 1, 0)
        assert tracker.flush() == Written(flush=2, new_period=False)
        tracker.track(uuid("w1"), uuid("u1"), 1, 0)
        tracker.flush()
    warnings = [message for message in caplog.messages if "was confirmed before" in message]
    assert len(warnings) == 1
    assert "in the database is 1, but flush 3 was confirmed before" in warnings[0]


@pytest.mark.parametrize("ending", ["", " reset"])
def test_a_flush_counts_once_if_any_of_its_requests_is_cut(proxy: Proxy, ending: str) -> None:
    tracker = Tracker(uuid("r1"), connect(proxy.url), flush_interval=None)
    tracker.track(uuid("w1"), uuid("u1"), 1, 1)
    tracker.flush()
    tracked, struck = 1, 0
    for number in range(1, 20):
        tracked += 1
        tracker.track(uuid(f"w{tracked}"), uuid("u1"), 1, 1)
        proxy.run(f"cut request:{number}{ending}")
        try:
            tracker.flush()
        except (UnavailableError, CommitUnknownError):
            struck += 1
        # If the first request is cut, the flush uses another connection and succeeds.
        if proxy.run("pending") == "1":
            break
    # A flush has six round trips, and the first cut does not strike.
    assert struck == 5
    tracker.shutdown()
    assert totals(proxy.behind) == (tracked, 1, tracked, tracked)


@pytest.mark.parametrize("point", ["commit", "reply"])
@pytest.mark.parametrize("ending", ["", " reset"])
def test_a_commit_without_a_reply_is_unknown_and_counts_once(proxy: Proxy, point: str, ending: str) -> None:
    with Tracker(uuid("r1"), connect(proxy.url), flush_interval=None) as tracker:
        tracker.track(uuid("w1"), uuid("u1"), 1, 1)
        proxy.run(f"cut {point}{ending}")
        with pytest.raises(CommitUnknownError, match="its outcome is unknown.*boundary-usage status"):
            tracker.flush()
        tracker.track(uuid("w2"), uuid("u1"), 1, 1)
        tracker.flush()
    assert totals(proxy.behind) == (2, 1, 2, 2)


def test_a_commit_to_a_silent_server_times_out_and_counts_once(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    with Tracker(uuid("r1"), connect(proxy.url), flush_interval=None) as tracker:
        tracker.track(uuid("w1"), uuid("u1"), 1, 1)
        proxy.run("cut silence")
        with monkeypatch.context() as patch:
            patch.setattr(postgres, "TRANSACTION_SECONDS", 0.5)
            with pytest.raises(CommitUnknownError):
                tracker.flush()
        assert tracker.flush() != Idle()
    assert totals(proxy.behind) == (1, 1, 1, 1)


def test_a_standby_is_named_and_a_promotion_loses_nothing(primary_and_standby: list[str]) -> None:
    primary, standby = primary_and_standby
    with pytest.raises(UnavailableError, match="the server is a read-only standby; connect to the primary"):
        connect(standby)
    connect(primary).close()
    until(lambda: query(standby, "SELECT to_regclass('boundary_usage_client_drops')"), "the tables on the standby")
    with Tracker(uuid("r1"), connect(standby), flush_interval=None) as tracker:
        tracker.track(uuid("w1"), uuid("u1"), 2, 1)
        with pytest.raises(UnavailableError, match="the server is a read-only standby; connect to the primary"):
            tracker.flush()
        query(standby, "SELECT pg_promote()")
    assert totals(standby) == (1, 1, 2, 1)


def test_a_shutdown_repeats_its_flush_until_the_database_is_back(proxy: Proxy) -> None:
    tracker = Tracker(uuid("r1"), connect(proxy.url), flush_interval=None, shutdown_timeout=60)
    tracker.track(uuid("w1"), uuid("u1"), 4, 2)
    proxy.run("cut request:1")
    proxy.run("refuse")
    with pytest.raises(UnavailableError):
        tracker.flush()
    stopped: list[object] = []
    stopping = threading.Thread(target=lambda: stopped.append(tracker.shutdown()))
    failures = Failures()
    with failures:
        stopping.start()
        assert failures.seen.wait(60)
        proxy.run("accept")
        stopping.join()
    assert stopped == [Written(flush=1, new_period=True)]
    assert totals(proxy.behind) == (1, 1, 4, 2)


def test_a_shutdown_resolves_an_unknown_commit(proxy: Proxy) -> None:
    tracker = Tracker(uuid("r1"), connect(proxy.url), flush_interval=None, shutdown_timeout=60)
    tracker.track(uuid("w1"), uuid("u1"), 4, 2)
    proxy.run("cut reply")
    tracker.shutdown()
    assert totals(proxy.behind) == (1, 1, 4, 2)


def test_a_shutdown_reports_an_unresolved_commit(proxy: Proxy) -> None:
    tracker = Tracker(uuid("r1"), connect(proxy.url), flush_interval=None, shutdown_timeout=0.5)
    tracker.track(uuid("w1"), uuid("u1"), 4, 2)
    proxy.run("cut reply")
    with pytest.raises(CommitUnknownError):
        tracker.flush()
    proxy.run("refuse")
    with pytest.raises(CommitUnknownError, match="the outcome of flush 1 of replica .* is unknown"):
        tracker.shutdown()
    proxy.run("accept")


class Failures(logging.Handler):
    """Detects a failed flush by its warning."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Handles a warning."""
        self.seen.set()

    def __enter__(self) -> "Failures":
        logging.getLogger("boundary_usage").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("boundary_usage").removeHandler(self)


def test_connecting_to_a_silent_server_times_out_after_the_login(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(postgres, "LOOKUP_SECONDS", 0.5)
    monkeypatch.setattr(postgres, "SLOW_SECONDS", 0.1)
    proxy.run("cut silent-request:1")
    with pytest.raises(UnavailableError, match=r"the server on 127\.0\.0\.1, port \d+ failed"):
        connect(proxy.url)
    assert "has not replied for more than 0.1 s" in caplog.text


def test_connecting_to_a_silent_server_times_out_before_the_login(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(postgres, "SLOW_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(UnavailableError, match=rf"connecting to the server on 127\.0\.0\.1, port {port} failed"):
            connect(f"postgres://u@127.0.0.1:{port}/d?connect_timeout=2")
        assert time.monotonic() - started < 20
    assert f"connecting to the server on 127.0.0.1, port {port} takes more than" in caplog.text


def test_tables_in_another_schema_are_not_created_again(postgres_url: str) -> None:
    owner, other = f"owner_{name_of(postgres_url)}", f"other_{name_of(postgres_url)}"
    administer(
        postgres_url,
        f"CREATE ROLE {owner} LOGIN",
        f"CREATE ROLE {other} LOGIN",
        f"CREATE SCHEMA {owner} AUTHORIZATION {owner}",
        f"GRANT CREATE ON SCHEMA public TO {other}",
    )
    as_owner, as_other = (postgres_url.replace("postgres@", f"{role}@") for role in (owner, other))
    connect(as_owner).close()
    with pytest.raises(RefusedError, match=f"the tables are in the schema {owner}.*set search_path"):
        connect(as_other)
    # A search path that an operator has chosen allows a second set.
    administer(postgres_url, f"ALTER ROLE {other} SET search_path = public")
    connect(as_other).close()
    administer(postgres_url, f"ALTER ROLE {owner} SET search_path = {owner}, public")
    with pytest.raises(RefusedError, match="several sets of tables"):
        connect(as_owner)


def test_later_tables_earlier_on_the_search_path_get_no_usage(postgres_url: str) -> None:
    database = connect(postgres_url)
    with Tracker(uuid("r1"), database, flush_interval=None) as tracker:
        tracker.track(uuid("w1"), uuid("u1"), 1, 0)
        administer(
            postgres_url,
            "CREATE SCHEMA postgres",
            "CREATE TABLE postgres.boundary_usage_stats (LIKE boundary_usage_stats INCLUDING ALL)",
        )
        tracker.flush()
    assert query(postgres_url, "SELECT count(*) FROM public.boundary_usage_stats") == 1
    database.close()


def test_a_closed_database_reconnects_for_the_last_flush(postgres_url: str) -> None:
    database = connect(postgres_url)
    tracker = Tracker(uuid("r1"), database, flush_interval=None)
    tracker.track(uuid("w1"), uuid("u1"), 4, 2)
    database.close()
    assert tracker.shutdown() == Written(flush=1, new_period=True)
    assert totals(postgres_url) == (1, 1, 4, 2)


def test_a_database_with_another_hashing_key_is_refused(postgres_url: str) -> None:
    database = connect(postgres_url)
    with Tracker(uuid("r1"), database, flush_interval=None) as tracker:
        tracker.track(uuid("w1"), uuid("u1"), 1, 0)
        key = database.hashing_key()
        administer(
            postgres_url,
            "UPDATE boundary_usage_deployment SET hashing_key = decode(repeat('00', 16), 'hex')",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'boundary-usage'"
            " AND datname = current_database()",
        )
        with pytest.raises(RefusedError, match="another hashing key"):
            tracker.flush()
        with psycopg.connect(postgres_url) as connection:
            connection.execute("UPDATE boundary_usage_deployment SET hashing_key = %s", [key])
        assert tracker.flush() == Written(flush=1, new_period=True)
