"""Support for the tests, beside the shared `tests/pytest/real_parts.py`."""

import pytest
from real_parts import Proxy

from boundary_usage import connect


@pytest.fixture
def proxy(proxy: Proxy) -> Proxy:
    """Starts a proxy in front of a PostgreSQL database with tables."""
    connect(proxy.behind).close()
    return proxy
