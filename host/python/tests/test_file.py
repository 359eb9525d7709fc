"""URLs of SQLite files, and files that are deleted or replaced."""

import os
import sqlite3
from pathlib import Path

import pytest
from real_parts import Program
from scenario import uuid

from boundary_usage import ConfigurationError, RefusedError, Tracker, UnavailableError, Written, connect


def allowed(path: Path) -> int:
    """Returns the allowed requests in the open period of a file."""
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT coalesce(sum(allowed_requests), 0) FROM boundary_usage_stats").fetchone()[0]


def move(path: Path, target: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        if Path(f"{path}{suffix}").exists():
            Path(f"{path}{suffix}").rename(f"{target}{suffix}")


def remove(path: Path) -> None:
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        name.unlink(missing_ok=True)


def test_a_deleted_file_fails_one_flush_and_loses_no_activity(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    with Tracker(uuid("r1"), connect(f"sqlite:{path}"), flush_interval=None) as tracker:
        tracker.track(uuid("w1"), uuid("u1"), 10, 0)
        tracker.flush()
        key = connect(f"sqlite:{path}").hashing_key()
        remove(path)
        tracker.track(uuid("w2"), uuid("u1"), 900, 0)
        with pytest.raises(UnavailableError, match="usage.db` was deleted while it was open"):
            tracker.flush()
        assert tracker.flush() == Written(flush=1, new_period=True)
        assert allowed(path) == 900
        assert connect(f"sqlite:{path}").hashing_key() == key


def test_a_restored_backup_fails_one_flush_and_gets_the_next(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, backup = tmp_path / "usage.db", tmp_path / "backup.db"
    with Tracker(uuid("r1"), connect(f"sqlite:{path}"), flush_interval=None) as tracker:
        tracker.track(uuid("w1"), uuid("u1"), 10, 0)
        tracker.flush()
        with sqlite3.connect(path) as connection:
            connection.execute("VACUUM INTO ?", [str(backup)])
        tracker.track(uuid("w1"), uuid("u1"), 5, 0)
        tracker.flush()
        remove(path)
        backup.rename(path)
        tracker.track(uuid("w2"), uuid("u1"), 100, 0)
        with pytest.raises(UnavailableError, match="was replaced while it was open"):
            tracker.flush()
        assert tracker.flush() == Written(flush=2, new_period=False)
        assert allowed(path) == 110
    assert "in the database is 1, but flush 2 was confirmed before" in caplog.text


def test_a_file_with_another_hashing_key_is_refused(tmp_path: Path) -> None:
    path, other, aside = tmp_path / "usage.db", tmp_path / "other.db", tmp_path / "aside.db"
    database = connect(f"sqlite:{path}")
    connect(f"sqlite:{other}").close()
    with Tracker(uuid("r1"), database, flush_interval=None) as tracker:
        tracker.track(uuid("w1"), uuid("u1"), 7, 0)
        # The log is moved too, because SQLite would apply it to the other file.
        move(path, aside)
        move(other, path)
        with pytest.raises(UnavailableError, match="replaced"):
            tracker.flush()
        with pytest.raises(RefusedError, match="another hashing key"):
            tracker.flush()
        remove(path)
        move(aside, path)
        assert tracker.flush() == Written(flush=1, new_period=True)
    assert allowed(path) == 7


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqlite:my%20usage.db", "my usage.db"),
        ("sqlite:my usage.db", "my usage.db"),
        ("sqlite://a.db", "a.db"),
        ("sqlite:100%.db", "100%.db"),
        ("sqlite:50%zz.db", "50%zz.db"),
        ("sqlite:a%3Fb.db", "a?b.db"),
        ("sqlite:a%25b.db?mode=rwc", "a%b.db"),
        ("sqlite:a#b&c+d.db", "a#b&c+d.db"),
        ("sqlite:./file:e.db", "file:e.db"),
        ("sqlite:%C3%A4.db", "ä.db"),
    ],
)
def test_a_url_names_the_same_file_as_in_the_rust_host(
    url: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Tracker(uuid("r1"), connect(url), flush_interval=None) as tracker:
        tracker.track(uuid("w1"), uuid("u1"), 3, 0)
    assert [entry.name for entry in tmp_path.iterdir() if not entry.name.endswith(("-wal", "-shm"))] == [name]
    assert Program(url).json("collect")["allowed_requests"] == 3


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:a%00.db", "must be a file"),
        ("sqlite:%FF.db", "not UTF-8"),
        ("sqlite:file:a.db", "must be a file"),
        ("sqlite:a.db?mode=ro", "only parameters"),
        ("sqlite:a.db?cache=shared", "only parameters"),
        ("sqlite:no/a.db", "there is no directory"),
        ("sqlite:.", "is a directory"),
    ],
)
def test_a_url_that_names_no_file_is_refused(
    url: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=message):
        connect(url)
    assert not list(tmp_path.iterdir())


def test_mode_rw_does_not_create_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="there is no file"):
        connect(f"sqlite:{tmp_path}/usage.db?mode=rw")
    assert not list(tmp_path.iterdir())


def test_a_relative_path_does_not_depend_on_later_working_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    database = connect("sqlite:usage.db")
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")
    database.close()
    with Tracker(uuid("r1"), database, flush_interval=None) as tracker:
        tracker.track(uuid("w1"), uuid("u1"), 3, 0)
    assert allowed(tmp_path / "usage.db") == 3
