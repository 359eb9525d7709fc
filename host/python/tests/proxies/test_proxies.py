"""Real proxies with the lines of `docs/hosts.md` count each request once. `make test-proxies` runs these tests."""

import os
import shutil
import signal
import subprocess
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_parts import from_environment, totals
from running import AUTHORIZATION, OWNER, READER, WORKSPACE, Proxy, Upstream, documented, free_port

SQUID_HASH = "$apr1$C8QV0v16$pZT7tO8Glgz6ZIa44MMPj."  # "secret"
CADDY_HASH = "$2a$04$Tj.7YYqypkr7q31z87Bpu.FFecgnX4t.okSKzWiJTerxRxuGpfS3q"  # "secret"
WRONG = "Basic YWxpY2U6d3Jvbmc="  # "alice:wrong"
SITE, FORBIDDEN = "site.example", "forbidden.example"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """Starts an upstream server."""
    upstream = Upstream()
    yield upstream
    upstream.close()


def program(name: str) -> str:
    """Returns the path of a proxy."""
    found = shutil.which(name, path=f"{from_environment('BOUNDARY_USAGE_TEST_PROXIES')}:{os.environ['PATH']}:/usr/sbin")
    assert found, f"{name} is missing; `make setup-proxies` installs it"
    return found


def test_squid_passes_its_log_to_the_reader(sqlite_url: str, tmp_path: Path, upstream: Upstream) -> None:
    port, log = free_port(), tmp_path / "reader.log"
    os.mkfifo(log)
    (tmp_path / "users").write_text(f"alice:{SQUID_HASH}\n")
    helper = tmp_path / "helper"
    places = {"/usr/local/bin/python": f"2>{log} {READER[0]}"}
    helper.write_text(documented("sh", places | {"sqlite:/var/lib/boundary-usage/usage.db": sqlite_url}))
    helper.chmod(0o755)
    lines = documented("squid", {"/etc/squid/users.htpasswd": tmp_path / "users", "/etc/squid/boundary-usage": helper})
    configuration = tmp_path / "squid.conf"
    configuration.write_text(f"""{lines}
        http_port 127.0.0.1:{port}
        acl forbidden dstdomain {FORBIDDEN}
        http_access deny !alice
        http_access deny forbidden
        http_access allow all
        cache deny all
        cache_log {tmp_path}/cache.log
        pid_filename none
        visible_hostname test
        shutdown_lifetime 0 seconds
    """)
    # Squid refuses to run as root, and the files of this test belong to the user who runs it.
    user = ["unshare", "--user", "--map-user=1", "--map-group=1"] if os.getuid() == 0 else []
    command = [*user, program("squid"), "-N", "-f", str(configuration)]
    reader = subprocess.Popen(["cat", str(log)], stdout=subprocess.PIPE, text=True)
    with reader, Proxy(tmp_path, sqlite_url, command, port) as proxy:
        alice = {"Proxy-Authorization": AUTHORIZATION}
        assert proxy.get(50, f"http://{upstream.address}/200", alice) == [200]
        assert proxy.get(10, f"http://{upstream.address}/403", alice) == [403]
        assert proxy.get(20, f"http://{FORBIDDEN}/", alice) == [403]
        assert proxy.get(5, f"http://{upstream.address}/200", {}) == [407]
        wrong = {"Proxy-Authorization": WRONG}
        assert proxy.get(5, f"http://{upstream.address}/200", wrong) == [407]
        proxy.stop()
        # Squid also logs the first connection of this test, which has no request.
        assert "{'unidentified': 11, 'allowed': 60, 'denied': 20}" in reader.communicate()[0]
    assert totals(sqlite_url) == (1, 1, 60, 20)


def test_haproxy_writes_its_log_to_the_reader(sqlite_url: str, tmp_path: Path, upstream: Upstream) -> None:
    port = free_port()
    (tmp_path / "users.map").write_text(f"alice {WORKSPACE} {OWNER}\n")
    (tmp_path / "hosts").write_text(f"{SITE}\n")
    places = {"127.0.0.1:8080": f"127.0.0.1:{port}", "/etc/haproxy/users.map": tmp_path / "users.map"}
    lines = documented("haproxy", places | {"/etc/haproxy/allowed_hosts": tmp_path / "hosts"})
    configuration = tmp_path / "haproxy.cfg"
    limits = "defaults\n    mode http\n    timeout client 60s\n    timeout server 60s\n    timeout connect 60s\n"
    configuration.write_text(f"{limits}{lines}\nbackend upstream\n    server upstream {upstream.address}\n")
    command = [*READER, "--denied", "PR", program("haproxy"), "-db", "-f", str(configuration)]
    with Proxy(tmp_path, sqlite_url, command, port) as proxy:
        alice = {"Authorization": AUTHORIZATION, "Host": SITE}
        assert proxy.get(50, "/200", alice) == [200]
        assert proxy.get(10, "/403", alice) == [403]
        assert proxy.get(20, "/200", alice | {"Host": FORBIDDEN}) == [403]
        assert proxy.get(5, "/200", {"Host": SITE}) == [401]
        assert proxy.get(5, "/200", {"Host": SITE, "Authorization": WRONG}) == [401]
        # SIGTERM would stop HAProxy before it logs its last request. SIGUSR1 adds a line about the stop.
        assert "{'allowed': 60, 'denied': 20, 'unidentified': 11}" in proxy.stop(signal.SIGUSR1)
    assert totals(sqlite_url) == (1, 1, 60, 20)


def test_caddy_writes_its_log_to_the_reader(sqlite_url: str, tmp_path: Path, upstream: Upstream) -> None:
    port = free_port()
    places = {":8080 {": f"http://:{port} {{", "example.com": SITE, "http://upstream:8080": upstream.address}
    configuration = tmp_path / "Caddyfile"
    configuration.write_text("{\n\tadmin off\n}\n" + documented("caddy", places | {"HASH": CADDY_HASH}))
    command = [*READER, program("caddy"), "run", "--config", str(configuration)]
    with Proxy(tmp_path, sqlite_url, command, port) as proxy:
        check_by_status(proxy)
    assert totals(sqlite_url) == (1, 1, 50, 30)


def test_traefik_writes_its_log_to_the_reader(sqlite_url: str, tmp_path: Path, upstream: Upstream) -> None:
    port = free_port()
    dynamic = tmp_path / "dynamic"
    dynamic.mkdir()
    lines = documented("yaml traefik", {"/var/log/traefik.log": tmp_path / "traefik.log"})
    configuration = tmp_path / "traefik.yaml"
    configuration.write_text(
        f"{lines}entryPoints: {{ egress: {{ address: '127.0.0.1:{port}' }} }}\n"
        f"providers: {{ file: {{ directory: {dynamic} }} }}\n"
    )
    identity = documented("yaml traefik-dynamic", {"http://127.0.0.1:9000": f"http://{upstream.address}"})
    (dynamic / "identity.yaml").write_text(identity)
    routes = TRAEFIK.format(site=SITE, forbidden=FORBIDDEN, upstream=upstream.address)
    (dynamic / "routes.yaml").write_text(routes)
    names = ["--workspace", "request_X-Workspace", "--owner", "request_X-Owner", "--decision", "DownstreamStatus"]
    command = [*READER, *names, program("traefik"), f"--configfile={configuration}"]
    with Proxy(tmp_path, sqlite_url, command, port) as proxy:
        check_by_status(proxy)
    assert totals(sqlite_url) == (1, 1, 50, 30)


def test_envoy_writes_its_log_to_the_reader(sqlite_url: str, tmp_path: Path, upstream: Upstream) -> None:
    port = free_port()
    lines = documented("yaml envoy", {"http://127.0.0.1:9000": f"http://{upstream.address}"})
    configuration = tmp_path / "envoy.yaml"
    upstream_port = upstream.address.partition(":")[2]
    configuration.write_text(
        ENVOY.format(port=port, upstream=upstream_port, forbidden=FORBIDDEN, lines=textwrap.indent(lines, " " * 10))
    )
    command = [*READER, program("envoy"), "--config-path", str(configuration), "--use-dynamic-base-id"]
    with Proxy(tmp_path, sqlite_url, command, port) as proxy:
        check_by_status(proxy)
    assert totals(sqlite_url) == (1, 1, 50, 30)


def check_by_status(proxy: Proxy) -> None:
    """Sends requests to a proxy whose log has their statuses."""
    # Traefik listens before it has its routes, and does not log all requests before that.
    deadline = time.monotonic() + 60
    while proxy.get(1, "/200", {"Host": SITE}) != [401]:
        assert time.monotonic() < deadline
    claim = {"X-Workspace": WORKSPACE, "X-Owner": OWNER}
    for claimed in (claim, claim | {"Authorization": WRONG}):
        assert proxy.get(5, "/200", claimed | {"Host": SITE}) == [401]
    proxy.get(5, "/200", claim | {"Host": "unknown.example"})
    alice = {"Authorization": AUTHORIZATION, "Host": SITE}
    assert proxy.get(50, "/200", alice) == [200]
    assert proxy.get(10, "/403", alice) == [403]
    assert proxy.get(20, "/200", alice | {"Host": FORBIDDEN}) == [403]
    log = proxy.stop()
    assert "{'unidentified': " in log
    assert ", 'allowed': 50, 'denied': 30}" in log


TRAEFIK = """
http:
  middlewares:
    nowhere: {{ ipAllowList: {{ sourceRange: ["192.0.2.1"] }} }}
  routers:
    site: {{ rule: "Host(`{site}`)", middlewares: [unclaimed, identity], service: upstream }}
    forbidden: {{ rule: "Host(`{forbidden}`)", middlewares: [unclaimed, identity, nowhere], service: upstream }}
  services:
    upstream: {{ loadBalancer: {{ servers: [{{ url: "http://{upstream}" }}] }} }}
"""

ENVOY = """
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: egress
          route_config:
            virtual_hosts:
            - name: forbidden
              domains: ["{forbidden}"]
              routes: [{{ match: {{ prefix: / }}, direct_response: {{ status: 403 }} }}]
            - name: site
              domains: ["*"]
              routes: [{{ match: {{ prefix: / }}, route: {{ cluster: identity }} }}]
{lines}
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
  - name: identity
    load_assignment:
      cluster_name: identity
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {upstream} }} }} }}
"""
