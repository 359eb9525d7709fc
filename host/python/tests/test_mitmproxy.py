"""The addon for mitmproxy counts the requests of curl over HTTP and HTTPS."""

import socket
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from mitmdump import ALICE, BOB, BY_HEADERS, CAROL, Mitmdump, Upstream, closed_port, write_certificates, write_users
from real_parts import totals

AS_ALICE = (f"x-workspace: {ALICE}", f"x-owner: {CAROL}")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with all certificates."""
    folder = tmp_path_factory.mktemp("certificates")
    write_certificates(folder)
    return folder


@pytest.fixture
def upstream(certificates: Path) -> Iterator[Upstream]:
    """Starts an upstream server."""
    upstream = Upstream(certificates)
    yield upstream
    upstream.close()


def test_requests_of_authenticated_users_count_once(
    url: str, certificates: Path, upstream: Upstream, tmp_path: Path
) -> None:
    users = write_users(tmp_path)
    with Mitmdump(certificates, url, *users, "boundary_usage_allow=127.0.0.1, *.example.com") as proxy:
        assert proxy.curl(f"{upstream.http}/a", user="alice:secret") == ["000 200"]
        # The proxy allowed this request, and the 403 is from the upstream.
        assert proxy.curl(f"{upstream.http}/403", user="alice:secret") == ["000 403"]
        # One tunnel with three requests.
        urls = [f"{upstream.https}/{path}" for path in ("a", "403", "b")]
        assert proxy.curl(*urls, user="bob:secret") == ["200 200", "000 403", "000 200"]
        denied = ["http://localhost/", "http://127.0.0.1.example.org/", "http://example.com/"]
        assert [proxy.curl(url, user="alice:secret") for url in denied] == [["000 403"]] * 3
        assert proxy.curl("https://localhost/", user="alice:secret") == ["403 000"]
        # A client that names an allowed host in the URL and another one in the header.
        assert proxy.curl(upstream.http, user="alice:secret", headers=("host: localhost",)) == ["000 403"]
        for user in ("", "alice:wrong", "mallory:secret"):
            assert proxy.curl(upstream.http, user=user) == ["000 407"]
            assert proxy.curl(upstream.https, user=user) == ["407 000"]
        assert proxy.curl(upstream.http, user="dave:secret") == ["000 403"]
        assert proxy.curl(upstream.https, user="dave:secret") == ["403 000"]
        assert len(upstream.requests) == 5
        log = proxy.stop()
    assert "{'allowed': 5, 'denied': 5, 'unidentified': 2}" in log
    assert totals(url) == (2, 1, 5, 5)


def test_headers_identify_requests_and_the_proxy_removes_them(url: str, certificates: Path, upstream: Upstream) -> None:
    with Mitmdump(certificates, url, *BY_HEADERS) as proxy:
        assert proxy.curl(f"{upstream.http}/a", headers=AS_ALICE) == ["000 200"]
        assert proxy.curl(f"{upstream.http}/403", headers=AS_ALICE) == ["000 403"]
        assert proxy.curl(f"{upstream.https}/a", f"{upstream.https}/403", headers=AS_ALICE) == ["200 200", "000 403"]
        # Headers of the CONNECT identify the tunnel, whatever the requests inside it claim.
        of_connect = ("--proxy-header", f"x-workspace: {BOB}", "--proxy-header", f"x-owner: {CAROL}")
        assert proxy.curl(*of_connect, f"{upstream.https}/b", headers=AS_ALICE) == ["200 200"]
        invalid = [(), AS_ALICE[:1], (AS_ALICE[0], "x-owner: carol"), (AS_ALICE[0], f"x-owner: {0:032}")]
        for headers in invalid:
            assert proxy.curl(f"{upstream.http}/a", headers=headers) == ["000 200"]
            assert proxy.curl(f"{upstream.https}/a", headers=headers) == ["200 200"]
        log = proxy.stop()
    assert len(upstream.requests) == 5 + 2 * len(invalid)
    assert not any(names & {"x-workspace", "x-owner"} for _, names in upstream.requests)
    assert log.count("it has no valid workspace and owner") == 4  # the 1st, 2nd, 4th and 8th of 8
    assert "{'allowed': 3, 'denied': 2, 'unidentified': 8}" in log
    assert totals(url) == (2, 1, 3, 2)


def test_configured_statuses_and_killed_requests_count_as_denied(
    sqlite_url: str, certificates: Path, upstream: Upstream
) -> None:
    denied = ("boundary_usage_denied=418", "boundary_usage_denied=451,404")
    options = (*BY_HEADERS, *denied, "block_list=|~u /killed|444", "block_list=|~u /blocked|404")
    with Mitmdump(certificates, sqlite_url, *options) as proxy:
        for path, status in [("418", "418"), ("451", "451"), ("killed", "000"), ("blocked", "404")]:
            assert proxy.curl(f"{upstream.http}/{path}", headers=AS_ALICE) == [f"000 {status}"]
            assert proxy.curl(f"{upstream.https}/{path}", headers=AS_ALICE) == [f"200 {status}"]
        assert proxy.curl(f"{upstream.http}/403", headers=AS_ALICE) == ["000 403"]
        proxy.stop()
    assert totals(sqlite_url) == (1, 1, 1, 8)


def test_failed_and_unfinished_requests_count_once(sqlite_url: str, certificates: Path, upstream: Upstream) -> None:
    with Mitmdump(certificates, sqlite_url, *BY_HEADERS) as proxy, closed_port() as gone:
        identity_of_connect = tuple(argument for header in AS_ALICE for argument in ("--proxy-header", header))
        assert proxy.curl(f"http://{gone}/", headers=AS_ALICE) == ["000 502"]
        assert proxy.curl(f"https://{gone}/", *identity_of_connect) == ["502 000"]
        assert proxy.curl(f"{upstream.http}/break", headers=AS_ALICE) == ["000 502"]
        assert proxy.curl(f"{upstream.https}/break", headers=AS_ALICE) == ["200 502"]
        for base in (upstream.http, upstream.https):
            with proxy.start_curl(f"{base}/wait", headers=AS_ALICE) as client:
                while upstream.requests[-1][0] != "/wait":
                    upstream.arrived.acquire()
                client.kill()
            upstream.requests.append(("/killed", set()))
        with proxy.start_curl(f"{upstream.https}/wait", headers=AS_ALICE):
            while upstream.requests[-1][0] != "/wait":
                upstream.arrived.acquire()
            log = proxy.stop()
    assert "{'allowed': 7}" in log
    assert totals(sqlite_url) == (1, 1, 7, 0)


def test_a_failed_tunnel_identifies_no_later_request(sqlite_url: str, certificates: Path, upstream: Upstream) -> None:
    with Mitmdump(certificates, sqlite_url, *BY_HEADERS) as proxy, closed_port() as gone:
        client = HTTPConnection(proxy.address)
        for request, workspace, status in [(("CONNECT", gone), ALICE, 502), (("GET", upstream.http), BOB, 200)]:
            client.request(*request, headers={"x-workspace": str(workspace), "x-owner": str(CAROL)})
            response = client.getresponse()
            assert (response.status, bool(response.read())) == (status, True)
        client.close()
        proxy.stop()
    assert totals(sqlite_url) == (2, 1, 2, 0)


def test_an_upstream_that_fails_after_the_connect_counts_once(sqlite_url: str, certificates: Path) -> None:
    with Mitmdump(certificates, sqlite_url, *BY_HEADERS, "connection_strategy=lazy") as proxy, closed_port() as gone:
        assert proxy.curl(f"https://{gone}/", headers=AS_ALICE) == ["200 502"]
        proxy.stop()
    assert totals(sqlite_url) == (1, 1, 1, 0)


def test_a_tunnel_without_visible_requests_counts_once(
    sqlite_url: str, certificates: Path, upstream: Upstream, tmp_path: Path
) -> None:
    users = write_users(tmp_path)
    with Mitmdump(certificates, sqlite_url, *users, "ignore_hosts=127.0.0.1") as proxy:
        trusted = ("--cacert", str(certificates / "upstream-ca-cert.pem"))
        urls = [f"{upstream.https}/{path}" for path in "ab"]
        assert proxy.curl(*urls, *trusted, user="alice:secret") == ["200 200", "000 200"]
        # This client does not trust the upstream's certificate.
        assert proxy.curl(urls[0], user="bob:secret") == ["200 000"]
        # This tunnel is open when the proxy stops.
        with socket.create_connection(proxy.address.split(":")) as client:
            port = upstream.https.rpartition(":")[2]
            credentials = "YWxpY2U6c2VjcmV0"  # alice:secret
            request = f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nproxy-authorization: Basic {credentials}\r\n\r\n"
            client.sendall(request.encode())
            assert b" 200 " in client.recv(100)
            proxy.stop()
    assert totals(sqlite_url) == (2, 1, 3, 0)


def test_a_denied_upload_ends_while_bodies_are_streamed(
    sqlite_url: str, certificates: Path, upstream: Upstream
) -> None:
    with Mitmdump(
        certificates, sqlite_url, *BY_HEADERS, "boundary_usage_allow=127.0.0.1", "stream_large_bodies=1"
    ) as proxy:
        for header in ("x-any: 1", "transfer-encoding: chunked"):
            # A denied client gets no response, because mitmproxy cannot respond while it streams a body.
            for host, status in [("127.0.0.1", "200"), ("localhost", "000")]:
                url = upstream.http.replace("127.0.0.1", host)
                assert proxy.curl("--data", "text", url, headers=(*AS_ALICE, header)) == [f"000 {status}"]
        proxy.stop()
    assert totals(sqlite_url) == (1, 1, 2, 2)


def test_saved_and_replayed_requests_do_not_count(
    sqlite_url: str, certificates: Path, upstream: Upstream, tmp_path: Path
) -> None:
    saved = str(tmp_path / "flows")
    with Mitmdump(certificates, sqlite_url, *BY_HEADERS, arguments=("--save-stream-file", saved)) as proxy:
        proxy.curl(upstream.http, headers=AS_ALICE)
        proxy.stop()
    assert totals(sqlite_url) == (1, 1, 1, 0)
    for arguments in (("--no-server", "--rfile", saved), ("--client-replay", saved)):
        assert "{}" in Mitmdump(certificates, sqlite_url, *BY_HEADERS, arguments=arguments).end()
    assert len(upstream.requests) == 2
    assert totals(sqlite_url) == (0, 0, 0, 0)


def test_a_reload_flushes_and_a_failed_one_refuses_requests(
    sqlite_url: str, certificates: Path, upstream: Upstream, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text("from boundary_usage.mitmproxy import BoundaryUsage\naddons = [BoundaryUsage()]\n")
    users = write_users(tmp_path)
    with Mitmdump(certificates, sqlite_url, *users, arguments=("--scripts", str(script))) as proxy:
        assert proxy.curl(upstream.http, user="alice:secret") == ["000 200"]
        Path(users[1].partition("=")[2]).write_text("alice\n")
        script.write_text(script.read_text() + "\n")
        assert "{'allowed': 1}" in proxy.wait_for("boundary usage stopped")
        assert "users.txt:1: expected a new user name" in proxy.wait_for("boundary usage cannot start")
        assert totals(sqlite_url) == (1, 1, 1, 0)
        assert proxy.curl(upstream.http, user="alice:secret") == ["000 503"]


def test_bad_options_fail_the_start(certificates: Path, tmp_path: Path) -> None:
    database = f"sqlite:{tmp_path / 'usage.db'}"
    auth, users = write_users(tmp_path)
    bad_users = tmp_path / "bad.txt"
    bad_users.write_text(f"alice {ALICE} {CAROL}\nalice {ALICE} {CAROL}\n")
    cases = [
        ("no option identifies the sender", (), database),
        ("no option identifies the sender", BY_HEADERS[:1], database),
        ("boundary_usage_users needs the option proxyauth", (users,), database),
        ("boundary_usage_users excludes", (auth, users, *BY_HEADERS), database),
        (f"{bad_users}:2: expected a new user name", (auth, f"boundary_usage_users={bad_users}"), database),
        ("No such file or directory: '/nowhere'", (auth, "boundary_usage_users=/nowhere"), database),
        ("has `example.com:80`, must be a host", (*BY_HEADERS, "boundary_usage_allow=example.com:80"), database),
        ("has ``, must be a host", (*BY_HEADERS, "boundary_usage_allow="), database),
        ("has `4O3`, must be a status", (*BY_HEADERS, "boundary_usage_denied=403,4O3"), database),
        ("has no option boundary_usage_alow", (*BY_HEADERS, "boundary_usage_alow=example.com"), database),
        ("multiple values for boundary_usage_owner", (*BY_HEADERS, "boundary_usage_owner=x"), database),
        ("names no supported kind of database", BY_HEADERS, "mysql://localhost"),
        ("correct the path", BY_HEADERS, "sqlite:/nowhere/usage.db"),
    ]
    started = [(text, Mitmdump(certificates, url, *options)) for text, options, url in cases]
    for text, proxy in started:
        log = proxy.end()
        assert proxy.process.returncode == 1, log
        assert text in log
