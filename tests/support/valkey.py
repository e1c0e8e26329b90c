"""A real Valkey for tests, which speaks Redis: the one that the sample brings along."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sample.servers.valkey import Valkey

__all__ = ["Valkey", "valkey"]


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """Yield a running server of this test alone: it may freeze, kill and restart it."""
    with Valkey() as server:
        yield server
