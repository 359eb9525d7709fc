"""The installed files: symbols, names, and the static library."""

import re
import subprocess
from pathlib import Path

import pytest

from conftest import COMPILERS, SOURCES, WARNINGS, Compile, library_folder, pkg_config, run_silently

SHARED = "libboundary_usage.so"
STATIC = "libboundary_usage.a"


def output(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def header() -> str:
    return (Path(pkg_config("--variable=includedir")[0]) / "boundary_usage.h").read_text()


def declared() -> set[str]:
    """Returns the functions that the header declares."""
    code = re.sub(r"//.*", "", header())
    return set(re.findall(r"\b(boundary_usage_\w+)\(", code))


def test_only_the_functions_of_the_header_are_exported() -> None:
    symbols = output("nm", "--dynamic", "--defined-only", f"{library_folder()}/{SHARED}").splitlines()
    assert {line.split()[-1] for line in symbols} == declared()
    assert len(declared()) == 14


def test_the_shared_library_has_a_soname_with_the_version() -> None:
    version = pkg_config("--modversion")[0]
    soname = f"{SHARED}.{version.rpartition('.')[0]}"
    dynamic = output("readelf", "--dynamic", f"{library_folder()}/{SHARED}")
    assert f"Library soname: [{soname}]" in dynamic
    links = {path.name: path.resolve().name for path in Path(library_folder()).glob("*.so*")}
    assert links == dict.fromkeys([SHARED, soname, f"{SHARED}.{version}"], f"{SHARED}.{version}")


def test_the_status_ok_is_zero_and_all_codes_differ() -> None:
    status = header().partition("typedef enum boundary_usage_status")[2].partition("}")[0]
    codes = dict(re.findall(r"(BOUNDARY_USAGE_\w+) = (\d+)", status))
    assert codes["BOUNDARY_USAGE_OK"] == "0"
    assert len(set(codes.values())) == len(codes) >= 13


@pytest.mark.parametrize("language", COMPILERS)
def test_the_header_compiles_alone(language: str) -> None:
    code = "#include <boundary_usage.h>\nint main(void) { return boundary_usage_version() == 0; }\n"
    kind = {"c99": "c", "c++17": "c++"}[language]
    command = [COMPILERS[language][0], f"-std={language}", *WARNINGS, "-fsyntax-only", "-x", kind, "-"]
    subprocess.run([*command, *pkg_config("--cflags")], input=code, text=True, check=True)


@pytest.mark.parametrize("language", COMPILERS)
def test_the_static_library_links_and_runs(tmp_path: Path, language: str, url: str) -> None:
    libraries = pkg_config("--static", "--cflags", "--libs")
    assert "-lboundary_usage" in libraries
    # The linker would prefer the shared library in the same folder.
    libraries[libraries.index("-lboundary_usage")] = f"-l:{STATIC}"
    program = tmp_path / "replica"
    command = [*COMPILERS[language], *WARNINGS, "-o", str(program), str(SOURCES / "arguments.c"), "-x", "none"]
    subprocess.run([*command, *libraries], check=True)
    assert SHARED not in output("ldd", str(program))
    run_silently(program, url)


def test_the_version_is_that_of_the_package(compiled: Compile) -> None:
    run_silently(compiled("version", "c99", f'-DVERSION="{pkg_config("--modversion")[0]}"'))
