"""Trying again: what fails is repeated, a halt never is, and a kill ends the pause at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from haltline import CapabilityFrozen, Killed, Refusal, StampRefused, Unverified
from haltline.testing import FakeSwitch, fake_switch, killed


@pytest.fixture
def switch() -> Iterator[FakeSwitch]:
    """Return a switch with its background thread on the machine's clocks."""
    made = fake_switch(background=True)
    yield made
    made.close()


class Flaky:
    """Fails a number of times, and counts."""

    def __init__(self, failures: int, error: BaseException | None = None) -> None:
        self.calls = 0
        self._failures = failures
        self._error = error if error is not None else OSError("not now")

    def __call__(self, word: str = "done") -> str:
        """Fail, or return the word."""
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error
        return word

    async def later(self, word: str = "done") -> str:
        """As calling it, for asyncio."""
        return self(word)


def test_what_fails_is_tried_again(switch: FakeSwitch) -> None:
    """As a loop, as a call, and in asyncio."""
    with switch.run("r-1") as run:
        again = run.retrying(on=OSError, wait_initial=0.01, wait_jitter=0)
        assert again(Flaky(2), "looped") == "looped"
        numbers = []
        flaky = Flaky(2)
        for attempt in again:
            with attempt:
                numbers.append(attempt.number)
                flaky()
        assert numbers == [1, 2, 3]

        async def main() -> None:
            flaky = Flaky(2)
            async for attempt in again:
                with attempt:
                    await flaky.later()
            assert flaky.calls == 3
            assert await again.acall(Flaky(2).later, "called") == "called"

        asyncio.run(main())


def test_it_ends_with_the_error(switch: FakeSwitch) -> None:
    """After so many attempts, or so much time, what surfaces is the last error itself."""
    with switch.run("r-1") as run:
        flaky = Flaky(99)
        with pytest.raises(OSError, match="not now"):
            run.retrying(on=OSError, attempts=3, wait_initial=0, wait_jitter=0)(flaky)
        assert flaky.calls == 3
        with pytest.raises(OSError, match="not now"):
            run.retrying(on=(OSError, ValueError), attempts=None, timeout=0.1, wait_initial=0.02, wait_jitter=0)(flaky)
        assert 3 < flaky.calls < 99


def test_what_it_was_not_told_of_is_not_tried_again(switch: FakeSwitch) -> None:
    """Another exception surfaces at once; a function may tell."""
    with switch.run("r-1") as run:
        flaky = Flaky(1, KeyError("other"))
        with pytest.raises(KeyError):
            run.retrying(on=OSError)(flaky)
        assert flaky.calls == 1
        assert (
            run.retrying(on=lambda error: isinstance(error, KeyError), wait_initial=0, wait_jitter=0)(flaky) == "done"
        )


def halts(switch: FakeSwitch) -> list[BaseException]:
    """Return what tells of a stop, alone and in groups."""
    with switch.run("r-9") as run:
        with killed(switch, "capability:send_email"), pytest.raises(CapabilityFrozen) as frozen:
            run.check("send_email")
        with killed(switch, "run:r-9"), pytest.raises(Killed) as halted:
            run.check()
    with pytest.raises(Unverified) as unverified:
        switch.run("r-10").check()
    refused = StampRefused("refused", reason=Refusal.DISCARDED)
    single: list[BaseException] = [frozen.value, halted.value, unverified.value, refused]
    return [*single, BaseExceptionGroup("all", [OSError(), BaseExceptionGroup("inner", [halted.value])])]


@pytest.mark.parametrize("which", range(5))
def test_a_halt_is_never_tried_again(switch: FakeSwitch, which: int) -> None:
    """Not even by who asks for every exception there is; and no line after the attempt runs."""
    error = halts(switch)[which]
    with switch.run("r-1") as run:
        again = run.retrying(on=BaseException, wait_initial=0, wait_jitter=0)
        flaky = Flaky(1, error)
        with pytest.raises(type(error)) as caught:
            again(flaky)
        assert caught.value is error
        assert flaky.calls == 1
        after: list[str] = []

        def loop() -> None:
            for attempt in again:
                with attempt:
                    raise error
                after.append("the line after the attempt")

        async def aloop() -> None:
            async for attempt in again:
                with attempt:
                    raise error
                after.append("the line after the attempt")

        with pytest.raises(type(error)):
            loop()
        with pytest.raises(type(error)):
            asyncio.run(aloop())
        assert after == []


def test_a_kill_ends_the_pause(switch: FakeSwitch) -> None:
    """At once, and nothing is called after it: also where what failed did so because of the kill."""
    with switch.run("r-1") as run:
        flaky = Flaky(99)
        threading.Timer(0.05, switch.service.kill, ("run:r-1",)).start()
        begun = time.monotonic()
        with pytest.raises(Killed):
            run.retrying(on=OSError, timeout=None, wait_initial=60, wait_max=60)(flaky)
        assert time.monotonic() - begun < 20
        assert flaky.calls == 1
        with pytest.raises(Killed):
            run.retrying(on=OSError)(flaky)
        assert flaky.calls == 1


def test_a_kill_ends_the_pause_of_a_task(switch: FakeSwitch) -> None:
    """So in asyncio, a hundred at a time."""
    flaky = Flaky(9999)

    async def main() -> None:
        async with switch.run("r-1") as run:
            again = run.retrying(on=OSError, timeout=None, wait_initial=60, wait_max=60)
            tasks = [asyncio.create_task(again.acall(flaky.later)) for _ in range(100)]
            await asyncio.sleep(0.05)
            await asyncio.to_thread(switch.service.kill, "run:r-1")
            ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
            assert all(isinstance(each, Killed) for each in ended)

    asyncio.run(main())
    assert flaky.calls == 100


def test_each_attempt_is_checked(switch: FakeSwitch) -> None:
    """Without a lease there is no attempt."""
    with switch.run("r-1") as run:
        flaky = Flaky(0)
        switch.close()
        with pytest.raises(Unverified):
            run.retrying(on=OSError)(flaky)
        assert flaky.calls == 0


def test_planned_work_retries_through_a_drain(switch: FakeSwitch) -> None:
    """Redeemed work that is drained goes on trying; one that is discarded stops."""
    with switch.run("r-1") as run:
        stamp = run.plan("send_email")
    with switch.redeem(stamp) as work:
        switch.service.kill("tenant:acme", queued="drain")
        switch.service.kill("run:r-1", queued="drain")
        again = work.retrying(on=OSError, wait_initial=0.01, wait_jitter=0)
        assert again(Flaky(3)) == "done"
        switch.service.kill("run:r-1")
        with pytest.raises(Killed):
            again(Flaky(3))
