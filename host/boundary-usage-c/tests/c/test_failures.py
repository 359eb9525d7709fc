"""Wrong components, broken databases and damaged files, and their log messages."""

import json
import uuid
from pathlib import Path

import pytest
from real_parts import Proxy, from_environment, totals, until

from conftest import COMPONENT, MANUAL, Start, await_checkpoint

ERROR, WARNING, INFO = 1, 2, 3


def messages(path: Path) -> list[tuple[int, str]]:
    """Returns the levels and texts of logged messages."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(level), text) for level, text in (line.split(" ", 1) for line in lines)]


@pytest.mark.parametrize("content", [None, b"", b"not a component", b"\0asm\x01\0\0\0"])
def test_a_wrong_component_is_refused(replica: Start, sqlite_url: str, tmp_path: Path, content: bytes | None) -> None:
    component = tmp_path / "tracker.wasm"
    if content is not None:
        component.write_bytes(content)
    refusing = replica(database=sqlite_url, component=str(component))
    status, message = refusing.run("start")
    assert status == COMPONENT and message
    refusing.end()


def test_a_crash_of_the_component_loses_nothing_and_is_logged(replica: Start, url: str, tmp_path: Path) -> None:
    running = replica(database=url, component=from_environment("BOUNDARY_USAGE_TEST_MISBEHAVING"), **MANUAL)
    cues = json.loads(from_environment("BOUNDARY_USAGE_TEST_CUES"))
    log = tmp_path / "log"
    running.ok(f"log {log}", "start", "track w1 u1 2 1")
    workspace = uuid.UUID(cues["TrapInTrack"]).hex
    running.ok(f"track {workspace} u2 1 0")
    until(lambda: running.status()["restarts"] >= 1)
    until(lambda: running.run("flush") == (0, ""))
    running.ok("shutdown")
    running.end()
    assert totals(url) == (2, 2, 3, 1)
    assert any(level <= WARNING and "component" in text for level, text in messages(log)), messages(log)


def test_a_file_that_is_not_a_database_is_an_error(replica: Start, tmp_path: Path) -> None:
    database = tmp_path / "usage.db"
    database.write_bytes(b"This is a text. " * 1000)
    refused = replica(database=f"sqlite:{database}")
    status, message = refused.run("start")
    assert status != 0 and "usage.db" in message, message
    refused.end()


def test_a_database_that_breaks_fails_flushes_and_is_logged(replica: Start, tmp_path: Path) -> None:
    database, log = tmp_path / "usage.db", tmp_path / "log"
    running = replica(database=f"sqlite:{database}", flush_interval="20ms", shutdown_timeout="500ms")
    running.ok(f"log {log}", "start", "track w1 u1 1 1", "flush")
    for path in tmp_path.glob("usage.db*"):
        path.unlink()
    database.write_bytes(b"This is a text. " * 1000)
    running.ok("track w2 u2 1 1")
    status, message = running.run("flush")
    assert status != 0 and message
    until(lambda: any(level == WARNING and "flush" in text for level, text in messages(log)))
    assert running.run("shutdown")[0] != 0
    running.end()


def test_a_damaged_checkpoint_is_set_aside_and_logged(replica: Start, sqlite_url: str, tmp_path: Path) -> None:
    state, log = tmp_path / "state", tmp_path / "log"
    options = {"database": sqlite_url, "state_dir": str(state)} | MANUAL
    first = replica(**options)
    first.ok("start", "track w1 u1 1 1")
    await_checkpoint(first)
    first.kill()
    (checkpoint,) = state.glob("*.checkpoint")
    checkpoint.write_bytes(b"damaged" + checkpoint.read_bytes())
    second = replica(**options)
    second.ok(f"log {log}", "start", "track w2 u2 1 1", "shutdown")
    second.end()
    assert any(level <= WARNING and "checkpoint" in text for level, text in messages(log)), messages(log)
    assert totals(sqlite_url) == (1, 1, 1, 1)


def cut_off(proxy: Proxy) -> None:
    """Separates the replica from its database: new connections are refused, and the idle one is closed."""
    proxy.run("refuse")
    proxy.run("cut request:1")


def test_a_replaced_log_receives_nothing_more(replica: Start, proxy: Proxy, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    logging = replica(database=proxy.url, flush_interval="20ms", shutdown_timeout="100ms")
    logging.ok(f"log {first}", "start")
    cut_off(proxy)
    logging.ok("track w1 u1 1 1")
    until(lambda: messages(first))
    logging.ok(f"log {second}")
    before = first.read_text()
    proxy.run("accept")
    until(lambda: any(level == INFO and "succeed again" in text for level, text in messages(second)))
    logging.ok("log")
    replaced = second.read_text()
    # This failure is the first one since a success, so it is not one of the rarely logged repetitions.
    failed = logging.status()["failed_flushes"]
    cut_off(proxy)
    logging.ok("track w1 u1 1 1")
    until(lambda: logging.status()["failed_flushes"] >= failed + 2)
    logging.end()
    assert (first.read_text(), second.read_text()) == (before, replaced)
