"""Laws of the client under any input: no reply makes a longer lease than it proves, and expired never says go."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import haltline
from haltline import CapabilityFrozen, Killed, Unverified
from haltline.clocks import LEASE_CLOCK
from haltline.lease import SPAN_MAX_US
from haltline.renewal import Reply
from haltline.testing import FakeService, FakeSwitch
from tests.support.exchange import Exchange

MEMBERS: Final = (
    "v", "namespace", "timebase", "epoch", "from", "seq", "hash", "read_at", "ttl_ms", "entries", "nonce",
    "received_at", "snapshot",
)  # fmt: skip
SCALARS: Final = (
    st.none()
    | st.booleans()
    | st.integers(-5, 20)
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(max_size=5)
    | st.sampled_from(["0" * 64, "f" * 16, "default"])
)
VALUES: Final = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*MEMBERS, "kind"]), inner, max_size=3),
    max_leaves=6,
)
CHANGES: Final = st.dictionaries(st.sampled_from(MEMBERS), VALUES, max_size=3)


@given(changes=st.lists(st.tuples(CHANGES, st.integers(0, 3_000)), min_size=1, max_size=4))
def test_no_frame_makes_a_lease_longer_than_it_proves(changes: list[tuple[dict[str, Any], int]]) -> None:
    """A lease never outlives t0 + span + min(ttl, 5 s), whatever members a frame has, and nothing raises."""
    exchange = Exchange()
    bound = 0
    for change, took_ms in changes:
        exchange.service.kill("run:other")
        ask = exchange.ask()
        seen: dict[str, Any] = {}

        def tamper(frame: dict[str, Any], change: dict[str, Any] = change, seen: dict[str, Any] = seen) -> None:
            frame.update(change)
            seen.update(frame)

        reply = exchange.reply(ask, change=tamper)
        exchange.clock.advance(took_ms / 1000)
        before = exchange.lease
        after = exchange.renewal.answered(ask, reply, exchange.clock.read())
        assert after.replica.position.seq >= before.replica.position.seq
        if after.until > before.until:
            span, ttl = seen["read_at"] - seen["received_at"], seen["ttl_ms"]
            assert 0 < span <= SPAN_MAX_US
            assert seen["nonce"] == ask.nonce
            assert after.replica.position.seq == seen["seq"]
            bound = max(bound, ask.t0.boot + span * 1_000 + min(ttl, 5_000) * 1_000_000)
            assert after.until * 1e9 < bound


@given(
    status=st.integers(100, 599) | st.just(200),
    kind=st.sampled_from(["application/json", "application/problem+json", "text/html", ""]),
    body=st.binary(max_size=200) | st.just(b'{"v":1}'),
)
def test_no_bytes_extend_a_lease(status: int, kind: str, body: bytes) -> None:
    """Whatever comes in place of a frame: the lease is as it was, or gone, and nothing raises."""
    exchange = Exchange()
    until = exchange.renew().until
    exchange.clock.advance(0.5)
    after = exchange.hear(Reply(status, kind, encoded=False, body=body))
    assert after.until in (until, float("-inf"))


TARGETS: Final = ("run:r-1", "run:r-2", "tenant:acme", "feature:outreach", "global", "capability:send")
PATHS: Final = {
    "r-1": {"run:r-1", "tenant:acme", "feature:outreach", "global"},
    "r-2": {"run:r-2", "global"},
}


class Client(RuleBasedStateMachine):
    """A client, a service and a clock, in any order of events; the model is the true history of flips."""

    @initialize(ttl_ms=st.sampled_from([200, 1000, 5000]))
    def start(self, ttl_ms: int) -> None:
        """Arm two runs."""
        self.ttl = ttl_ms / 1000
        self.service = FakeService(ttl_ms=ttl_ms)
        self.switch: FakeSwitch = self.service.switch(follow=False)
        self.runs = {"r-1": self.switch.run("r-1", tenant="acme", feature="outreach"), "r-2": self.switch.run("r-2")}
        for run in self.runs.values():
            run.arm()
        self.contact = self.now()
        self.killed: dict[str, float] = {}
        self.active: dict[str, float] = {}
        self.latched: set[str] = set()
        self.is_down = False

    def now(self) -> float:
        """Return the lease clock."""
        return self.service.clock.clocks.gettime(LEASE_CLOCK)

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.15, 0.4, 0.99, 1.0, 4.99, 6.0]))
    def time_passes(self, seconds: float) -> None:
        """Advance."""
        self.service.clock.advance(seconds)

    @rule(what=st.sampled_from(TARGETS))
    def kill(self, what: str) -> None:
        """Kill at the service; the client has not heard of it."""
        self.service.kill(what)
        self.killed[what] = min(self.killed.get(what, self.now()), self.now())
        self.active.setdefault(what, self.now())

    @rule(what=st.sampled_from(TARGETS))
    def revive(self, what: str) -> None:
        """Release every hold."""
        if self.service.holds(what):
            self.service.revive(what)
            del self.active[what]

    @rule(way=st.sampled_from(["down", "up", "401", "500"]))
    def outage(self, way: str) -> None:
        """Fail, or stop failing."""
        self.service.up()
        if way == "down":
            self.service.down()
        elif way != "up":
            self.service.refuse(int(way))
        self.is_down = way != "up"

    @rule()
    def renew(self) -> None:
        """One renewal; after it the client knows everything, or nothing new."""
        self.switch.renew()
        if not self.is_down:
            self.contact = self.now()

    @rule(name=st.sampled_from(list(PATHS)), capability=st.sampled_from([None, "send", "read"]))
    def check(self, name: str, capability: str | None) -> None:
        """A check passes only within ttl of the last contact, and of every kill that stops it."""
        run, now = self.runs[name], self.now()
        try:
            run.check(capability)
        except Killed:
            self.latched.add(name)
            assert PATHS[name] & self.killed.keys()
            return
        except CapabilityFrozen:
            assert capability == "send"
            return
        except Unverified:
            return
        assert name not in self.latched
        assert now < self.contact + self.ttl
        stopping = [self.killed[target] for target in PATHS[name] & self.killed.keys()]
        if capability == "send" and "capability:send" in self.active:
            stopping.append(self.active["capability:send"])
        assert all(now < moment + self.ttl for moment in stopping)
        assert all(self.contact <= moment for moment in stopping), "it had been told"

    @precondition(lambda self: not self.is_down)
    @rule(name=st.sampled_from(list(PATHS)))
    def wait(self, name: str) -> None:
        """With the service in reach, waiting ends in go unless a kill has met the run."""
        self.service.clock.advance(10)
        try:
            self.runs[name].wait(timeout=1)
        except Killed:
            assert PATHS[name] & self.killed.keys()
        else:
            assert not PATHS[name] & self.killed.keys()
        self.contact = self.now()

    @invariant()
    def nothing_is_current(self) -> None:
        """No run was entered, so the module's own check stops."""
        try:
            haltline.check()
        except Unverified:
            return
        raise AssertionError("a missing run context must stop")


Client.TestCase.settings = settings(stateful_step_count=40)
TestClient = Client.TestCase
