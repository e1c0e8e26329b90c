"""Outcomes: how killed runs ended is told in batches, in bounds, and never in anybody's way."""

# ruff: noqa: PT012 - the kill comes inside the block, and what surfaces is what leaves it

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from haltline import Killed
from haltline.asks import Identity
from haltline.cleanup import Cleanup
from haltline.errors import ServiceError
from haltline.flips import is_moment
from haltline.outcomes import (
    BATCH_MAX,
    BODY_MAX_BYTES,
    LEAVE_S,
    OUTCOMES_PATH,
    TRIES_MAX,
    WAITING_MAX,
    Ending,
    Outcomes,
    document,
)
from haltline.renewal import Reply
from haltline.testing import FakeService, fake_switch
from tests.support.lines import Line, connected

ME = Identity("worker-1", "0123456789abcdef", "default")
NOON = 1_795_000_000.25


class Desk:
    """Takes outcomes, or does not."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.made = self.closed = self.rotated = 0
        self.statuses: list[int] = []
        self.broken: list[Exception] = []
        self.open = threading.Event()
        self.open.set()

    def post(self, path: str, body: bytes, *, deadline_s: float, limit: int) -> Reply:  # noqa: ARG002  # the port's
        """Take a batch."""
        assert path == OUTCOMES_PATH
        assert 0 < deadline_s <= 5
        self.bodies.append(body)
        self.open.wait(30)
        if self.broken:
            raise self.broken.pop()
        return Reply(self.statuses.pop() if self.statuses else 204, "", encoded=False, body=b"")

    def interrupt(self) -> None:
        """Let go of whoever waits."""
        self.broken.append(ServiceError("interrupted", sent=True))
        self.open.set()

    def rotate(self) -> None:
        """Count it."""
        self.rotated += 1

    def close(self) -> None:
        """Count it."""
        self.closed += 1

    def make(self) -> Desk:
        """Return itself as another connection."""
        self.made += 1
        return self

    @property
    def told(self) -> list[list[str]]:
        """The runs of each batch."""
        return [[each["run"] for each in json.loads(body)["outcomes"]] for body in self.bodies]


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition of another thread holds; fail after 10 s."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not happen within 10 s"
        time.sleep(0.002)


def ending(run: str = "r-1", *cleanups: Cleanup, how: Literal["cleanup", "killed"] = "cleanup") -> Ending:
    """Return how a run ended."""
    return Ending(run, 7, NOON, how, cleanups)


@pytest.fixture
def desk() -> Desk:
    """Return a desk that takes what comes."""
    return Desk()


@pytest.fixture
def outcomes(desk: Desk) -> Iterator[Outcomes]:
    """Return what tells it."""
    made = Outcomes(desk.make, lambda: ME)
    yield made
    desk.open.set()
    made.close()


def test_as_it_is_told() -> None:
    """Run, flip, who, when, how, and each cleanup."""
    told = json.loads(
        document(ending("r-1", Cleanup("close", "failed", 0.25, "ValueError: a\ndefect \ud800"), how="killed"), ME)
    )
    assert is_moment(told["at"])
    assert told.pop("at").endswith(".250000Z")
    (cleanup,) = told.pop("cleanups")
    assert told == {"run": "r-1", "flip": 7, "worker": "worker-1", "instance": "0123456789abcdef", "ended": "killed"}
    assert (cleanup["name"], cleanup["outcome"]) == ("close", "failed")
    assert (cleanup["ms"], cleanup["detail"]) == (250, "ValueError: a defect  ")


def test_what_is_told_holds_no_token() -> None:
    """An error's text may: of whatever was called with it."""
    token = FakeService().token
    told = document(ending("r-1", Cleanup("close", "failed", 1.0, f"refused {token}, {token}")), ME)
    assert json.loads(told)["cleanups"][0]["detail"] == "refused hlt_..., hlt_..."


def test_what_is_too_much_is_cut() -> None:
    """An ending is told in one request; where not all of it fits, what went wrong comes first."""
    many = [Cleanup("ä" * 128, "done", 1.0, "") for _ in range(500)]
    told = document(ending("r-1", *many, Cleanup("wrong", "failed", 1.0, "x" * 256)), ME)
    assert len(told) < BODY_MAX_BYTES
    assert json.loads(told)["cleanups"][0]["name"] == "wrong"


def test_many_are_told_in_batches(desk: Desk, outcomes: Outcomes) -> None:
    """At most so many, and so many bytes, in one request; each once, in order."""
    runs = [f"r-{number}" for number in range(2 * BATCH_MAX + 50)]
    for number, run in enumerate(runs):
        outcomes.tell(ending(run, *[Cleanup("x" * 128, "done", 1.0)] * (number % 4)))
    until(lambda: sum(map(len, desk.told)) == len(runs))
    assert [run for batch in desk.told for run in batch] == runs
    assert max(map(len, desk.told)) <= BATCH_MAX
    assert max(map(len, desk.bodies)) <= BODY_MAX_BYTES
    assert len(desk.bodies) < len(runs) / 4
    assert desk.made == 1


def test_telling_never_waits(desk: Desk, outcomes: Outcomes) -> None:
    """However long the service takes, and however much there is: beyond a bound it is dropped."""
    desk.open.clear()
    begun = time.monotonic()
    for number in range(2 * WAITING_MAX):
        outcomes.tell(ending(f"r-{number}"))
    assert time.monotonic() - begun < 5
    assert WAITING_MAX <= outcomes.waiting <= WAITING_MAX + BATCH_MAX


def test_what_fails_is_told_again(desk: Desk, outcomes: Outcomes) -> None:
    """After no answer, at another address; and after an answer that says later."""
    desk.broken = [ServiceError("reset", sent=True)]
    desk.statuses = [503, 429]
    outcomes.tell(ending())
    until(lambda: desk.bodies != [])
    while outcomes.waiting:
        outcomes.flush(1)
    assert desk.told == [["r-1"]] * 4
    assert desk.rotated == 1


def test_it_is_not_tried_for_ever(desk: Desk, outcomes: Outcomes, caplog: pytest.LogCaptureFixture) -> None:
    """After so many failures in a row it is dropped, and said; what comes later is told."""
    desk.statuses = [503] * TRIES_MAX
    outcomes.tell(ending())
    for _ in range(TRIES_MAX):
        outcomes.flush(1)
    until(lambda: outcomes.waiting == 0)
    assert desk.told == [["r-1"]] * TRIES_MAX
    until(lambda: "outcomes were not told: 1 refused or never taken (status 503)" in caplog.text)
    outcomes.tell(ending("r-2"))
    until(lambda: desk.told[-1] == ["r-2"])


def test_failures_are_spread(desk: Desk, outcomes: Outcomes) -> None:
    """A service that is down is asked less and less often."""
    desk.statuses = [503] * TRIES_MAX
    outcomes.tell(ending())
    time.sleep(1.5)
    assert 2 <= len(desk.bodies) <= 4


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_final(desk: Desk, outcomes: Outcomes, status: int, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, and not told again."""
    desk.statuses = [status]
    outcomes.tell(ending())
    until(lambda: f"(status {status})" in caplog.text)
    assert outcomes.flush(1)
    assert desk.told == [["r-1"]]


def test_one_that_is_not_taken_costs_no_other(desk: Desk, outcomes: Outcomes) -> None:
    """A batch that is refused for what is in it is told in halves."""

    class Picky(Desk):
        def post(self, path: str, body: bytes, **bounds: Any) -> Reply:
            reply = super().post(path, body, **bounds)
            return reply if b'"r-3"' not in body else Reply(422, "", encoded=False, body=b"")

    picky = Picky()
    outcomes = Outcomes(picky.make, lambda: ME)
    for number in range(8):
        outcomes.tell(ending(f"r-{number}"))
    assert outcomes.flush(10)
    taken = [run for batch in picky.told if "r-3" not in batch for run in batch]
    assert sorted(taken) == [f"r-{number}" for number in range(8) if number != 3]
    outcomes.close()


def test_closing_tells_what_waits(desk: Desk) -> None:
    """At once, not when it would be due."""
    outcomes = Outcomes(desk.make, lambda: ME)
    outcomes.tell(ending())
    outcomes.close()
    assert desk.told == [["r-1"]]
    assert desk.closed == desk.made
    outcomes.tell(ending("r-2"))
    time.sleep(0.3)
    assert desk.told == [["r-1"]]


def test_closing_does_not_wait_for_ever(desk: Desk) -> None:
    """A service that hangs costs a second or two."""
    outcomes = Outcomes(desk.make, lambda: ME)
    desk.open.clear()
    outcomes.tell(ending())
    begun = time.monotonic()
    outcomes.close()
    assert LEAVE_S / 2 < time.monotonic() - begun < LEAVE_S + 3


def test_the_thread_ends_when_there_is_nothing_to_tell(desk: Desk, outcomes: Outcomes) -> None:
    """And gives its connection back, at once where it was in a hurry; the next one makes another."""
    for number in (1, 2):
        outcomes.tell(ending(f"r-{number}"))
        begun = time.monotonic()
        assert outcomes.flush(60)
        until(lambda: desk.closed == number)  # noqa: B023  # within the turn
        assert time.monotonic() - begun < 4
    assert (desk.told, desk.made) == ([["r-1"], ["r-2"]], 2)


def test_a_forked_child_begins_with_nothing_to_tell(desk: Desk, outcomes: Outcomes) -> None:
    """What waits is the parent's to tell; the child's own goes over a connection of its own."""
    desk.open.clear()
    outcomes.tell(ending())
    until(lambda: desk.told == [["r-1"]])
    outcomes.begin_anew()  # as the child does, which has this one thread
    assert (outcomes.waiting, desk.closed) == (0, 1)
    desk.open.set()
    outcomes.tell(ending("r-2"))
    until(lambda: ["r-2"] in desk.told)
    assert desk.made == 2


def test_a_killed_run_is_told() -> None:
    """By a real switch: when its block is left, with the flip that killed it and what became of its cleanups."""
    service = FakeService(ttl_ms=5000)
    with connected(Line(service)) as switch:
        with pytest.raises(Killed), switch.run("r-1") as run, switch.run("r-2") as other:
            other.on_cleanup(print)
            run.on_cleanup(print, name="print")
            service.kill("run:r-9")
            service.kill("run:r-1")
            service.kill("global", in_flight="finish")
            service.revive("global")
            until(lambda: switch.position == service.position)
            run.check()
        identity = switch._refresher._renewal.identity  # noqa: SLF001
    told = {each["run"]: each for each in service.outcomes}
    assert set(told) == {"r-1", "r-2"}
    assert (told["r-1"]["flip"], told["r-2"]["flip"]) == (3, 4)
    assert (told["r-1"]["worker"], told["r-1"]["instance"]) == ("worker-1", identity.instance)
    assert told["r-1"]["ended"] == "cleanup"
    assert [(each["name"], each["outcome"]) for each in told["r-1"]["cleanups"]] == [("print", "done")]


def test_a_run_that_nobody_killed_is_not_told() -> None:
    """Nor one that only lost its lease: there is no flip to tell of."""
    service = FakeService(ttl_ms=5000)
    with connected(Line(service)) as switch:
        with switch.run("r-1") as run:
            run.on_cleanup(print)
        with pytest.raises(ZeroDivisionError), switch.run("r-2"):
            _ = 1 / 0
    assert service.outcomes == []


def test_a_switch_on_a_manual_clock_tells_nothing() -> None:
    """Nothing happens there by itself."""
    switch = fake_switch()
    with pytest.raises(Killed), switch.run("r-1") as run:
        switch.service.kill("run:r-1")
        run.check()
    switch.close()
    assert switch.service.outcomes == []


LEAVING = textwrap.dedent(
    """
    import os
    from haltline.testing import FakeService
    from tests.support.lines import Line, connected

    class Told(Line):
        def post(self, path, body, **bounds):
            if path == "/v1/outcomes":
                os.write(1, body)
            return super().post(path, body, **bounds)

    service = FakeService(ttl_ms=5000)
    switch = connected(Told(service))
    with switch.run("r-1") as run:
        service.kill("run:r-1")
        while switch.position != service.position:
            pass
    """
)


def test_a_process_that_ends_tells_what_waits() -> None:
    """Also if nobody closes the switch."""
    done = subprocess.run(
        [sys.executable, "-c", LEAVING],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcomes"][0]["run"] == "r-1"


THREADLESS = textwrap.dedent(
    """
    import sys, threading
    from haltline.asks import Identity
    from haltline.cleanup import clean, pending
    from haltline.outcomes import Ending, Outcomes
    from tests.unit.client.test_outcomes import ME, NOON, Desk

    threading.stack_size(1 << 46)  # more than there is: no thread can be started from here on
    desk = Desk()
    outcomes = Outcomes(desk.make, lambda: ME)
    seen = []
    ended, _ = clean([pending(lambda: seen.append("cleanup"), None, "c")], 0)
    outcomes.tell(Ending("r-1", 7, NOON, "cleanup", ended))
    desk.statuses = [503]
    try:
        threading.Thread(target=print).start()
        print("a thread was started")
    except RuntimeError:
        print(outcomes.flush(20), desk.told, seen, ended[0].outcome)
    """
)


def test_where_no_thread_can_be_had() -> None:
    """As when the interpreter is ending: cleanups run and outcomes are told all the same, by whoever waits for them."""
    done = subprocess.run(
        [sys.executable, "-c", THREADLESS],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True [['r-1'], ['r-1']] ['cleanup'] done\n"
