"""What the errors are, and that they reach another process whole."""

from __future__ import annotations

import copy
import pickle

import pytest

from haltline import errors
from haltline.errors import (
    CapabilityFrozen,
    ChainBroken,
    Halt,
    HaltlineError,
    InvalidDocument,
    InvalidEntry,
    InvalidTarget,
    Killed,
    ServiceError,
    Unverified,
)
from haltline.scopes import parse_target
from haltline.verdict import GO, Go, Hold, Reason, Stop

STOP = Stop(
    Reason.KILLED,
    (Hold(7, parse_target("run:r-42"), "alice", "2026-11-20T20:25:11.000007Z", "why", "finish", "discard", "f-1"),),
    (parse_target("run:r-42"),),
    "a sentence",
)


@pytest.mark.parametrize("kind", [Halt, Killed, Unverified])
def test_a_halt_is_no_ordinary_exception(kind: type[Halt]) -> None:
    """A halt passes an ``except Exception``: frameworks swallow those and retry libraries retry them."""
    assert not issubclass(kind, Exception)
    assert issubclass(kind, Halt)


def test_the_ordinary_errors_have_one_base() -> None:
    """Every error that is not a halt is a HaltlineError, and what was malformed is a ValueError too."""
    public = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, BaseException)]
    assert {each for each in public if not issubclass(each, HaltlineError)} == {Halt, Killed, Unverified}
    assert issubclass(InvalidTarget, ValueError)
    assert issubclass(InvalidEntry, InvalidDocument)
    assert issubclass(InvalidDocument, ValueError)


@pytest.mark.parametrize(
    ("error", "names"),
    [
        (Killed("stopped", verdict=STOP), ["verdict"]),
        (Unverified("stopped", verdict=STOP), ["verdict"]),
        (CapabilityFrozen("frozen", capability="send", verdict=STOP), ["capability", "verdict"]),
        (ChainBroken("broken", seq=7), ["seq"]),
        (ServiceError("lost", sent=True), ["sent"]),
        (InvalidTarget("odd"), []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_survives_the_way_to_another_process(error: BaseException, names: list[str]) -> None:
    """Pickled and copied, an error keeps its type, its message, its notes and what it carries."""
    error.add_note("seen in a worker")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301  # our own bytes
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert twin.__notes__ == ["seen in a worker"]
        for name in names:
            assert getattr(twin, name) == getattr(error, name)


def test_a_verdict_reads_as_a_condition() -> None:
    """``if run.verdict(...)`` goes on a Go only; there is one Go."""
    assert bool(GO) is True
    assert bool(STOP) is False
    assert Go() == GO
    assert not Stop(Reason.STALE)
