"""Deliveries of the real program, verified by the reference libraries of the Standard Webhooks specification."""

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import jsonschema
import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

ROOT = Path(__file__).parents[2]
ACTIVITY = {
    "workspace": "0193a1b2-0000-7000-8000-000000000001",
    "owner": "0193a1b2-0000-7000-8000-0000000000aa",
    "allowed": 5,
    "denied": 2,
}


class Receiver(HTTPServer):
    """A receiver that keeps every request. The first one receives the status 500."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[dict[str, str], str]] = []


class Handler(BaseHTTPRequestHandler):
    """Handles one request."""

    server: Receiver

    def do_POST(self) -> None:
        """Keeps the request."""
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((headers, body))
        self.send_response(500 if len(self.server.requests) == 1 else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Runs a receiver on a free port."""
    with Receiver() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def secret() -> str:
    """Creates a secret."""
    return "whsec_" + base64.b64encode(os.urandom(32)).decode()


def run(folder: Path, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the program on a database in the folder."""
    program = os.environ["BOUNDARY_USAGE_TEST_PROGRAM"]
    return subprocess.run([program, *arguments], cwd=folder, input=text, capture_output=True, text=True)


def deliver(folder: Path, receiver: Receiver, secrets: list[str]) -> list[tuple[dict[str, str], str]]:
    """Delivers the summary of one period in two attempts, and returns both requests."""
    (folder / "secrets").write_text("\n".join(secrets) + "\n")
    assert run(folder, "replay", "-", text=json.dumps(ACTIVITY)).returncode == 0
    assert run(folder, "collect").returncode == 0
    url = f"http://127.0.0.1:{receiver.server_port}/usage"
    arguments = ["deliver", "--deliver", url, "--deliver-secret-file", "secrets", "--deliver-retry", "1ms"]
    assert run(folder, *arguments).returncode == 1
    while not run(folder, *arguments).stdout.startswith("1 "):
        pass
    return receiver.requests


def is_valid_in_python(secret: str, headers: dict[str, str], body: str) -> bool:
    """Verifies a request with the reference library for Python."""
    try:
        Webhook(secret).verify(body, headers)
    except WebhookVerificationError:
        return False
    return True


def is_valid_in_javascript(secret: str, headers: dict[str, str], body: str) -> bool:
    """Verifies a request with the reference library for JavaScript."""
    request = json.dumps({"secret": secret, "headers": headers, "body": body})
    script = Path(os.environ["BOUNDARY_USAGE_TEST_WEBHOOKS"]) / "verify.mjs"
    verified = subprocess.run(["node", script], input=request + "\n", capture_output=True, text=True, check=True)
    return verified.stdout == "valid\n"


@pytest.mark.parametrize("is_valid", [is_valid_in_python, is_valid_in_javascript])
def test_every_secret_of_a_rotation_verifies_every_attempt(is_valid, receiver, tmp_path: Path) -> None:
    secrets = [secret(), secret()]
    requests = deliver(tmp_path, receiver, secrets)
    assert len(requests) == 2
    assert requests[0][0]["webhook-id"] == requests[1][0]["webhook-id"]
    for headers, body in requests:
        assert all(is_valid(one, headers, body) for one in secrets)
        assert not is_valid(secret(), headers, body)
        assert not is_valid(secrets[0], headers, body.replace('"denied_requests":2', '"denied_requests":1'))
        assert not is_valid(secrets[0], {**headers, "webhook-id": "another"}, body)


def test_the_payload_has_the_published_schema(receiver: Receiver, tmp_path: Path) -> None:
    [_, (_, body)] = deliver(tmp_path, receiver, [secret()])
    payload = json.loads(body)
    schema = json.loads((ROOT / "docs/summary.schema.json").read_text())
    jsonschema.validate(payload, schema, format_checker=jsonschema.FormatChecker())
    assert (payload["allowed_requests"], payload["denied_requests"], payload["incomplete"]) == (5, 2, [])
    del payload["schema"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(payload, schema)
