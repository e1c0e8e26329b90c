"""What a switch is made of: its settings, what it refuses, and what it never tells."""

from __future__ import annotations

import doctest
import importlib
import os
import pickle
import pkgutil
import traceback
from pathlib import Path

import pytest

import haltline
import haltline.testing
from haltline import ConfigurationError, InvalidTarget, KillSwitch, Unverified
from haltline.clocks import LEASE_CLOCK, Clocks
from haltline.switch import namespace_of, worker_name
from tests.support.ports import free_port

SECRET = "S" * 43 + "crc123"
TOKEN = f"hlt_default_abcdefghijkl_{SECRET}"

PUBLIC = [
    "CapabilityFrozen", "Carried", "CarryingExecutor", "ChainBroken", "ConfigurationError", "Discarded", "Go", "Halt",
    "HaltlineError", "Hold", "InvalidCarrier", "InvalidDocument", "InvalidEntry", "InvalidTarget", "KillSwitch",
    "Killed", "PositionGap", "Reason", "Refusal", "Run", "RunStopped", "Scope", "ServiceError", "StampRefused", "Stop",
    "Target", "Unverified", "Verdict", "carry", "check", "current_run", "extract", "guarded", "inject",
]  # fmt: skip


def test_the_public_names_are_pinned() -> None:
    """A name is added or taken away on purpose, and the list is sorted."""
    assert haltline.__all__ == PUBLIC
    assert sorted(PUBLIC) == PUBLIC
    assert haltline.testing.__all__ == ["FakeService", "FakeSwitch", "ManualClock", "fake_switch", "killed"]
    assert all(hasattr(haltline, name) for name in haltline.__all__)


@pytest.mark.parametrize(
    "module",
    [
        "haltline.testing",
        *(
            f"haltline.testing.{each.name}"
            for each in pkgutil.iter_modules([str(Path(haltline.testing.__file__).parent)])
        ),
    ],
)
def test_the_examples_of_the_test_support_run(module: str) -> None:
    """Every example in its docstrings prints what it says."""
    failed, _ = doctest.testmod(importlib.import_module(module))
    assert failed == 0


def test_the_examples_are_there() -> None:
    """Each public name of the test support shows how it is used."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in ("FakeService", "ManualClock", "fake_switch", "killed"):
        assert [each for each in finder.find(getattr(haltline.testing, name), name) if each.examples], name


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """HALTLINE_URL and HALTLINE_TOKEN, read when the switch is made."""
    monkeypatch.setenv("HALTLINE_URL", "http://127.0.0.1:8787/haltline/,https://other.example")
    monkeypatch.setenv("HALTLINE_TOKEN", TOKEN)
    assert repr(KillSwitch()) == "<KillSwitch http://127.0.0.1:8787/haltline,https://other.example:443>"
    monkeypatch.setenv("HALTLINE_CA", "/no/such/file.pem")
    with pytest.raises(ConfigurationError, match=r"file\.pem"):
        KillSwitch()


@pytest.mark.parametrize("missing", ["HALTLINE_URL", "HALTLINE_TOKEN"])
def test_missing_settings_are_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """There is no default address and no default token."""
    monkeypatch.setenv("HALTLINE_URL", "http://127.0.0.1:8787")
    monkeypatch.setenv("HALTLINE_TOKEN", TOKEN)
    monkeypatch.delenv(missing)
    with pytest.raises(ConfigurationError, match=missing):
        KillSwitch()


def test_a_worker_name_outside_the_grammar_is_refused() -> None:
    """It would be refused by the service, long after the start."""
    with pytest.raises(InvalidTarget, match="worker"):
        KillSwitch("https://h", token=TOKEN, worker="no spaces")


def test_the_default_worker_name_is_of_this_process() -> None:
    """And a valid id."""
    assert worker_name().endswith(f".{os.getpid()}")
    assert haltline.scopes.check_id(worker_name())


@pytest.mark.parametrize(
    "token", ["", "secret", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), TOKEN.replace("default", "De")]
)
def test_a_malformed_token_is_refused_and_not_repeated(token: str) -> None:
    """The message does not show it."""
    with pytest.raises(ConfigurationError) as caught:
        namespace_of(token)
    assert SECRET[:20] not in str(caught.value)
    assert namespace_of(TOKEN) == "default"


def test_the_token_is_never_told() -> None:
    """Not by repr, str, trouble, an error, its traceback or its causes, during a real failed exchange."""
    with KillSwitch(f"http://127.0.0.1:{free_port()}", token=TOKEN) as switch:
        run = switch.run("r-1", timeout=0.3)
        with pytest.raises(Unverified) as caught:
            run.arm()
        told = "".join(traceback.format_exception(caught.value))
        told += f"{switch!r}{switch}{run!r}{switch.trouble!r}{caught.value.verdict!r}"
    assert "refused" in told
    assert SECRET not in told


def test_a_switch_is_not_pickled_with_its_token() -> None:
    """A switch handed to another process by pickle fails instead of carrying the secret there."""
    with pytest.raises((TypeError, AttributeError)):
        pickle.dumps(KillSwitch("https://h", token=TOKEN))


def test_clocks_are_read_as_of_one_moment() -> None:
    """A thread that is put aside between two clocks reads them anew, or it would see clocks that disagree."""
    now = [0]
    pauses = [0, 0, 30_000_000, 0, 0]

    def gettime_ns(clock: int) -> int:
        now[0] += 1_000 + (pauses.pop(0) if pauses else 0)
        return now[0]

    readings = Clocks(gettime_ns=gettime_ns).read()
    assert readings.raw - readings.boot < 10_000


def test_a_machine_that_is_always_slow_still_gets_a_reading() -> None:
    """Reading anew is tried a few times only."""
    now = [0]

    def gettime_ns(clock: int) -> int:
        now[0] += 30_000_000
        return now[0]

    assert Clocks(gettime_ns=gettime_ns).read().boot > 0


def test_the_lease_clock_counts_time_asleep() -> None:
    """It is the machine's boot-time clock, in the same seconds as the plain reading."""
    clocks = Clocks()
    assert abs(clocks.gettime(LEASE_CLOCK) - clocks.read().boot / 1e9) < 1
