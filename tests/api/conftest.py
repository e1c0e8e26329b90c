"""A service for each test, and one that the tests of a file share where they only look or need no clean log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.api.desk import Desk, open_desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Yield a service with an empty log."""
    made = open_desk(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Yield a service that the tests of one file share."""
    made = open_desk(tmp_path_factory.mktemp("shared"))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def journal_as_before() -> Iterator[None]:
    """Put the journal back as it was: its configuration is the process's, not the test's."""
    configured, configuration = structlog.is_configured(), structlog.get_config()
    yield
    if configured:
        structlog.configure(**configuration)
    else:
        structlog.reset_defaults()
