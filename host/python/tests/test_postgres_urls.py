"""URLs of PostgreSQL, and the environment variables that complete them."""

import getpass
import os
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from boundary_usage import ConfigurationError, UnavailableError, connect
from boundary_usage.database import url as urls


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Removes the variables of PostgreSQL."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    yield


def name_of(url: str) -> str:
    return urlsplit(url).path[1:]


def test_the_error_of_a_refused_connection_names_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UnavailableError) as refused:
        connect(f"postgres://u:hunter2@127.0.0.1:{port}/d")
    assert f"the server on 127.0.0.1, port {port}" in str(refused.value)
    assert str(refused.value).isprintable()
    assert "hunter2" not in str(refused.value)


def test_the_default_user_is_that_of_the_operating_system(postgres_url: str) -> None:
    parts = urlsplit(postgres_url)
    with pytest.raises(UnavailableError, match='role ".+" does not exist') as refused:
        connect(f"postgres://{parts.hostname}:{parts.port}{parts.path}")
    assert f'role "{getpass.getuser()}"' in str(refused.value)


@pytest.mark.parametrize(
    "form",
    [
        "postgres://postgres@{host}:{port}/{name}",
        "postgresql://postgres@{host}:{port}/{name}?connect_timeout=30",
        "postgres:///{name}?host={host}&port={port}&user=postgres",
        "postgres://postgres@/{name}?host={host}&port={port}",
        "postgres://nonexistent/{name}?host={host}&port={port}&user=postgres",
        "postgres://postgres@{host}:{port}/{name}?channel_binding=prefer",
        "postgres://postgres@{host}:{port}/{name}?application_name=proxy",
        "postgres://postgres@{host}:{port}/{name}?sslmode=",
    ],
)
def test_urls_have_the_same_meaning_as_in_libpq(postgres_url: str, form: str) -> None:
    parts = urlsplit(postgres_url)
    connect(form.format(host=parts.hostname, port=parts.port, name=name_of(postgres_url))).close()


def test_the_environment_completes_a_url(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = urlsplit(postgres_url)
    for name, value in {"PGHOST": parts.hostname, "PGPORT": str(parts.port), "PGUSER": "postgres"}.items():
        monkeypatch.setenv(name, str(value))
    for name in ("PGSSLMODE", "PGOPTIONS", "PGAPPNAME", "PGTARGETSESSIONATTRS"):
        # An empty variable counts as not set.
        monkeypatch.setenv(name, "")
    connect(f"postgres:///{name_of(postgres_url)}").close()


@pytest.mark.parametrize(
    ("url", "variables", "message"),
    [
        ("postgres://u@a,b/d", {}, "host.*name one host"),
        ("postgres:///d", {"PGHOST": "a,b"}, "PGHOST.*name one host"),
        ("postgres:///d?service=s", {}, "service.*into the URL"),
        ("postgres:///d", {"PGSERVICE": "s"}, "PGSERVICE.*into the URL"),
        ("postgres:///d", {"PGSERVICE": ""}, "PGSERVICE is empty.*unset it"),
        ("postgres://u@h/d", {"PGPORT": "x"}, "PGPORT.*a port is a number"),
        ("postgres://u@h/d", {"PGCONNECT_TIMEOUT": "soon"}, "PGCONNECT_TIMEOUT.*from 1 to 600"),
        ("postgres://u@h/d?connect_timeout=0", {}, "connect_timeout.*from 1 to 600"),
        ("postgres://u@h/d?target_session_attrs=standby", {}, "target_session_attrs.*primary"),
        ("postgres://u:pa/ss@h/d", {}, "percent-encode"),
    ],
)
def test_unsupported_parameters_are_refused_with_an_alternative(
    url: str, variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=message):
        connect(url)


@pytest.mark.parametrize(
    ("given", "variables", "is_verified"),
    [
        ({"host": "db.example"}, {}, True),
        ({}, {"PGHOST": "db.example"}, True),
        ({}, {"PGHOSTADDR": "192.0.2.1"}, True),
        ({"host": "localhost"}, {"PGHOSTADDR": "192.0.2.1"}, True),
        ({"host": "localhost", "hostaddr": "192.0.2.1"}, {}, True),
        ({"host": "db.example", "sslmode": ""}, {"PGSSLMODE": ""}, True),
        ({"host": "db.example", "sslmode": "disable"}, {}, False),
        ({"host": "db.example"}, {"PGSSLMODE": "disable"}, False),
        ({"host": "localhost"}, {"PGHOST": "db.example"}, False),
        ({"host": "127.0.0.5"}, {}, False),
        ({"host": "::1"}, {}, False),
        ({"host": "/run/postgresql"}, {}, False),
        ({}, {}, False),
    ],
)
def test_certificates_are_verified_unless_the_server_is_local(
    given: dict[str, str], variables: dict[str, str], is_verified: bool
) -> None:
    assert (urls.resolve(given, variables).get("sslmode") == "verify-full") == is_verified
