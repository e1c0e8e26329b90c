"""The journal of these tests lets everything through, whatever tests before them configured."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def open_journal() -> Iterator[None]:
    """Let every event through, and put the journal back as it was."""
    configured, configuration = structlog.is_configured(), structlog.get_config()
    structlog.reset_defaults()
    yield
    if configured:
        structlog.configure(**configuration)
