"""Which requests count, and how: the final status, subrequests, identities, and reports of uncounted requests."""

import socket
import subprocess

from conftest import IDENTITY, OWNER, WORKSPACE, Nginx
from real_parts import LIMIT, totals

OTHER = "0193a1b2-0000-7000-8000-000000000002"

SERVER = f"""
    boundary_usage on;
    log_subrequest on;
    root /nonexistent;

    location = /allowed {{ return 200; }}
    location = /forbidden {{ return 403; }}
    location = /login {{ return 407; }}
    location = /page {{ error_page 403 /forbidden-page; return 403; }}
    location = /forbidden-page {{ internal; return 200; }}
    location = /named {{ error_page 403 = @replaced; return 403; }}
    location @replaced {{ return 200; }}
    location = /changed {{ error_page 404 =403 /forbidden-page; }}

    location = /authorized {{ auth_request /yes; try_files /none =404; }}
    location = /unauthorized {{ auth_request /no; try_files /none =404; }}
    location = /yes {{ internal; return 204; }}
    location = /no {{ internal; return 403; }}
    location = /mirrored {{ mirror /allowed; }}

    location = /limited {{ boundary_usage_denied 503; limit_req zone=one; try_files /none =404; }}
    location /statuses {{
        boundary_usage_denied 402 404;
        location = /statuses-402 {{ return 402; }}
        location = /statuses-403 {{ return 403; }}
    }}
    location = /off {{ boundary_usage off; return 200; }}
    location /constant {{ boundary_usage_workspace {OTHER}; return 200; }}
    location /composed {{ boundary_usage_workspace 0193a1b2-0000-7000-8000-$arg_node; return 200; }}
"""

# A path, and its result.
REQUESTS = [
    ("/allowed", "allowed"),
    ("/missing", "allowed"),
    ("/forbidden", "denied"),
    ("/login", "denied"),
    ("/page", "denied"),
    ("/named", "allowed"),
    ("/changed", "denied"),
    ("/authorized", "allowed"),
    ("/unauthorized", "denied"),
    ("/mirrored", "allowed"),
    ("/limited", "allowed"),
    ("/limited", "denied"),
    ("/statuses-402", "denied"),
    ("/statuses-403", "allowed"),
    ("/statuses-404", "denied"),
    ("/off", "-"),
    ("/constant", "allowed"),
    ("/composed?node=000000000003", "allowed"),
    ("/composed?node=3", "invalid-workspace"),
]


# The log contains subrequests too, before the main request.
SUBREQUESTS = {"/authorized": 1, "/unauthorized": 1, "/mirrored": 1}


def test_the_final_status_of_each_request_counts_once() -> None:
    http = "limit_req_zone $host zone=one:1m rate=1r/m;"
    with Nginx(http=http, server=SERVER) as nginx:
        logged = 0
        for path, expected in REQUESTS:
            nginx.get(path)
            logged += 1 + SUBREQUESTS.get(path, 0)
            assert nginx.results(logged)[-1] == expected, path
        assert len(nginx.results(logged)) == logged
        nginx.stop()
        expected = [result for _, result in REQUESTS]
        assert totals(nginx.url) == (3, 1, expected.count("allowed"), expected.count("denied"))


def test_pipelined_requests_count_and_unfinished_ones_do_not() -> None:
    with Nginx(server="boundary_usage on; return 200;") as nginx:
        headers = "".join(f"{name}: {value}\r\n" for name, value in IDENTITY.items())
        request = f"GET / HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode()
        with socket.create_connection(("127.0.0.1", nginx.port), timeout=LIMIT) as connection:
            connection.sendall(2 * request + b"GET / HTTP/1.1\r\nHost: unfinished")
            received = b""
            while received.count(b"HTTP/1.1 200") < 2:
                received += connection.recv(4096)
        nginx.stop()
        assert nginx.results(3) == ["allowed", "allowed", "invalid-workspace"]
        assert totals(nginx.url) == (1, 1, 2, 0)


def test_requests_over_http_2_count() -> None:
    nginx = Nginx()
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    nginx.configure("boundary_usage on;", f"listen 127.0.0.1:{port} http2; location = /no {{ return 403; }}")
    with nginx:
        for path in ("a", "b", "no"):
            # This version of curl cannot send a second request on such a connection.
            command = ["curl", "--silent", "--http2-prior-knowledge", f"http://127.0.0.1:{port}/{path}"]
            for name, value in IDENTITY.items():
                command += ["--header", f"{name}: {value}"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        nginx.stop()
        assert totals(nginx.url) == (1, 1, 2, 1)


INVALID = [
    None,
    "",
    WORKSPACE[:-1],
    WORKSPACE + "0",
    "{" + WORKSPACE + "}",
    WORKSPACE.replace("-", ""),
    WORKSPACE.replace("-", "0"),
    "0193a1b20-000-7000-8000-000000000001",
    WORKSPACE.replace("1", "g"),
    "00000000-0000-0000-0000-000000000000",
    "\x1b[31m" + WORKSPACE,
]


def test_requests_without_a_valid_identity_pass_and_are_reported() -> None:
    server = "boundary_usage on; location / { return 200 ok; } location = /uncounted {" + (
        "boundary_usage off; return 200 $boundary_usage_uncounted; }"
    )
    with Nginx(server=server) as nginx:
        logged = 0
        for name, result in [("X-Workspace", "invalid-workspace"), ("X-Owner", "invalid-owner")]:
            for value in INVALID:
                logged += 1
                headers = {key: kept for key, kept in IDENTITY.items() if key != name}
                if value is not None:
                    headers[name] = value
                assert nginx.get("/", headers) == (200, "ok")
                assert nginx.results(logged)[-1] == result
        assert nginx.get("/", {"X-Workspace": WORKSPACE.upper(), "X-Owner": OWNER.upper()}) == (200, "ok")
        assert nginx.results(logged + 1)[-1] == "allowed"
        number = str(2 * len(INVALID))
        assert nginx.get("/uncounted")[1] == number
        # The number is that of all workers, and reloads keep it.
        nginx.reload()
        assert nginx.get("/uncounted")[1] == number
        nginx.get("/", {"X-Workspace": "\x1b[31m"})
        nginx.stop()
        lines = [line for line in nginx.errors().splitlines() if "request not counted" in line]
        assert len(lines) == 2, "one line for each worker"
        assert 'boundary_usage_workspace is not a UUID: "" (1 requests' in lines[0]
        assert f'boundary_usage_workspace is not a UUID: "?[31m" ({2 * len(INVALID) + 1} requests' in lines[1]
        assert "client: 127.0.0.1" in lines[0]
        assert totals(nginx.url) == (1, 1, 1, 0)
