"""The package contains the component and the SQL files of the Rust host."""

from importlib.resources import files
from pathlib import Path

from real_parts import Program

from boundary_usage.component import component_bytes


def test_the_component_equals_that_of_the_rust_host(sqlite_url: str, tmp_path: Path) -> None:
    written = tmp_path / "tracker-blocking.wasm"
    shown = Program(sqlite_url).json("component", "--world", "tracker-blocking", "--output", str(written))
    assert component_bytes() == written.read_bytes()
    assert shown["bytes"] == len(component_bytes())


def test_the_sql_files_equal_those_of_the_rust_host() -> None:
    ours = files("boundary_usage.database").joinpath("sql")
    theirs = Path(__file__).parents[2] / "boundary-usage" / "sql"
    scripts = sorted(path.relative_to(theirs) for path in theirs.rglob("*.sql"))
    assert len(scripts) >= 40
    assert all(ours.joinpath(str(script)).read_text() == (theirs / script).read_text() for script in scripts)


def test_the_package_declares_its_types() -> None:
    assert files("boundary_usage").joinpath("py.typed").is_file()
