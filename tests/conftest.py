"""How far the tests go: short and repeatable on every push, long and random at night."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

from tests.support.counts import NIGHTLY, SEED

pytest_plugins = ("tests.support.fixtures", "tests.support.valkey")

# Processes that run tests beside this one draw from the same seed.
os.environ["HALTLINE_FUZZ_SEED"] = str(SEED)

# deadline=None: a shared machine with two cores pauses a test for longer than any useful deadline.
# derandomize on a push: a red run is about the change, not about the draw. The night explores.
settings.register_profile("push", deadline=None, derandomize=True, max_examples=100)
settings.register_profile("nightly", deadline=None, max_examples=2_000)
settings.load_profile("nightly" if NIGHTLY else "push")


def pytest_report_header() -> str:
    """Say how far this run goes, and what repeats it."""
    return f"haltline: {'nightly' if NIGHTLY else 'push'} counts, HALTLINE_FUZZ_SEED={SEED}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the tests marked nightly, unless this is the night."""
    if NIGHTLY:
        return
    skip = pytest.mark.skip(reason="long: runs under `make nightly`")
    for item in items:
        if item.get_closest_marker("nightly"):
            item.add_marker(skip)


# A shell that starts this in the background has it ignore Ctrl-C, and every process that a test starts would inherit
# that: tests that interrupt a command would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
