"""A real mitmdump with the addon, its clients, and an upstream server."""

import base64
import hashlib
import ipaddress
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from mitmproxy.certs import CertStore

ALICE, BOB, CAROL = (UUID(int=number) for number in (1, 2, 3))
BY_HEADERS = ("boundary_usage_workspace=x-workspace", "boundary_usage_owner=x-owner")


class Mitmdump:
    """A running mitmdump on a port of its own. It trusts the upstream's certificates."""

    def __init__(self, certificates: Path, database: str, *options: str, arguments: tuple[str, ...] = ()) -> None:
        self._ca = certificates / "mitmproxy-ca-cert.pem"
        addon = subprocess.check_output([sys.executable, "-m", "boundary_usage.mitmproxy"], text=True).strip()
        settings = [
            f"confdir={certificates}",
            f"ssl_verify_upstream_trusted_ca={certificates / 'upstream-ca-cert.pem'}",
            f"boundary_usage_database={database}",
            *options,
        ]
        command = [str(Path(sys.executable).with_name("mitmdump")), "--listen-host", "127.0.0.1", "--listen-port", "0"]
        command += [argument for setting in settings for argument in ("--set", setting)]
        if "--scripts" not in arguments:
            command += ["--scripts", addon]
        self.process = subprocess.Popen(
            [*command, *arguments],
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.log: list[str] = []
        # A mitmdump that ends too late fails its test, because the log ends early.
        self._limit = threading.Timer(120, self.process.kill)
        self._limit.daemon = True
        self._limit.start()

    def wait_for(self, text: str) -> str:
        """Returns the next line of the log that contains the text."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.append(line)
            if text in line:
                return line
        raise AssertionError(f"mitmdump ended without `{text}`: {self.log}")

    def start(self) -> "Mitmdump":
        """Waits until the proxy listens."""
        self.address = self.wait_for("proxy listening at ").rstrip(".\n").rpartition(" ")[2]
        return self

    def end(self) -> str:
        """Waits for the end of the process; returns its log."""
        assert self.process.stdout is not None
        self.log += self.process.stdout
        self.process.wait()
        return "".join(self.log)

    def stop(self) -> str:
        """Sends SIGTERM; returns the log."""
        self.process.terminate()
        log = self.end()
        assert self.process.returncode == 0, log
        assert not re.search("Addon error|has crashed", log), log
        return log

    def start_curl(self, *arguments: str, user: str = "", headers: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """Starts curl with this proxy."""
        command = ["curl", "--silent", "--max-time", "60", "--noproxy", "", "--proxy", f"http://{self.address}"]
        command += ["--cacert", str(self._ca), "--write-out", "|%{http_connect} %{http_code}\n"]
        command += [argument for header in headers for argument in ("--header", header)]
        command += ["--proxy-user", user] if user else []
        try:
            return subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True)
        except FileNotFoundError:
            raise AssertionError("curl is missing; `make setup-curl` installs it") from None

    def curl(self, *arguments: str, user: str = "", headers: tuple[str, ...] = ()) -> list[str]:
        """Returns `CONNECT-STATUS STATUS` of each request; a status is 000 if there is none."""
        with self.start_curl(*arguments, user=user, headers=headers) as process:
            output, _ = process.communicate()
        return re.findall(r"\|(\d{3} \d{3})\n", output)

    def __enter__(self) -> "Mitmdump":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


class Upstream:
    """An HTTP server and an HTTPS server on 127.0.0.1, which record all requests."""

    def __init__(self, certificates: Path) -> None:
        self.requests: list[tuple[str, set[str]]] = []
        """The path and the names of the headers of each request."""
        self.arrived = threading.Semaphore(0)
        self.release = threading.Event()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificates / "127.0.0.1.pem")
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), self._handler()) for _ in range(2)]
        self._servers[1].socket = tls.wrap_socket(self._servers[1].socket, server_side=True)
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
        self.http, self.https = (
            f"{scheme}://127.0.0.1:{server.server_port}"
            for scheme, server in zip(("http", "https"), self._servers, strict=True)
        )

    def close(self) -> None:
        """Stops both servers."""
        self.release.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                """Responds with the status in the path; `/wait` blocks until the release, `/break` disconnects."""
                upstream.requests.append((self.path, {name.lower() for name in self.headers}))
                self.rfile.read(int(self.headers.get("content-length", 0)))
                upstream.arrived.release()
                if self.path == "/wait":
                    upstream.release.wait()
                if self.path == "/break":
                    self.close_connection = True
                    return
                status = self.path.strip("/")
                self.send_response(int(status) if status.isdecimal() else 200)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def write_certificates(folder: Path) -> None:
    """Creates the certificate authority of mitmproxy, and another one with the upstream's certificate."""
    CertStore.from_store(folder, "mitmproxy", 2048)
    issued = CertStore.from_store(folder, "upstream", 2048).get_cert(
        "127.0.0.1", [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    key = issued.privatekey.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "127.0.0.1.pem").write_bytes(issued.cert.to_pem() + key)


def write_users(folder: Path) -> tuple[str, str]:
    """Writes users and their passwords; returns the options for them.

    Alice and Bob have workspaces of Carol. Dave has a password and no workspace.
    """
    digest = base64.b64encode(hashlib.sha1(b"secret").digest()).decode()
    passwords, users = folder / "users.htpasswd", folder / "users.txt"
    passwords.write_text("".join(f"{name}:{{SHA}}{digest}\n" for name in ("alice", "bob", "dave")))
    users.write_text(f"alice {ALICE} {CAROL}\n\nbob {BOB} {CAROL}\n")
    return f"proxyauth=@{passwords}", f"boundary_usage_users={users}"


@contextmanager
def closed_port() -> Iterator[str]:
    """Yields an address on which nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"
