"""Lease streams and acks mean the same at the client's fake and at the real service, and the client lives on either."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any, Final

import pytest

from haltline import CapabilityFrozen, Killed, KillSwitch
from haltline.canonical import canonical, parse
from haltline.flips import Kill, Position, parse_entry, parse_stub
from haltline.renewal import Reply
from haltline.switch import Driver
from tests.support.lease_asking import Frames, acking, at, code, frame
from tests.support.lease_services import Fake, LeaseService, Real, Streamed

FIRST: Final = {"nonce", "received_at", "snapshot", "ack_within_ms", "stamp_keys"}
"""What only the first frame of a stream has."""


@pytest.fixture(scope="module", params=["fake", "real"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LeaseService]:
    """Return each of the two; the tests share it, so each kills targets of its own."""
    made: LeaseService = Fake() if request.param == "fake" else Real(tmp_path_factory.mktemp("lease"))
    yield made
    made.close()


@pytest.fixture
def name() -> str:
    """Return an id that no other test uses."""
    return f"x-{uuid.uuid4().hex}"


def test_a_stream_begins_with_what_a_single_request_gets(service: LeaseService, name: str) -> None:
    """The same members, with a snapshot or from the position that the request states; and how far to spread acks."""
    single = frame(service)
    with Frames(service, nonce="a" * 32) as frames:
        first = frames.next()
    assert first.keys() == single.keys() | {"ack_within_ms"}
    assert 50 <= first["ack_within_ms"] <= 30_000
    assert first["nonce"] == "a" * 32
    assert first["read_at"] > first["received_at"]
    assert first["timebase"] == single["timebase"]
    assert first["snapshot"] == single["snapshot"]
    service.kill(f"run:{name}")
    with Frames(service, **at(single)) as frames:
        later = frames.next()
    assert later.keys() == frame(service, **at(single)).keys() | {"ack_within_ms"} == first.keys() - {"snapshot"}
    assert (later["from"], [each["kind"] for each in later["entries"]]) == (single["seq"], ["kill"])


def test_every_later_frame_follows_the_one_before(service: LeaseService) -> None:
    """The same members but the first's own; the same clock, a newer read, and no way back. Four come in a ttl or so."""
    with Frames(service) as frames:
        first = before = frames.next()
        begun = time.monotonic()
        for _ in range(4):
            told = frames.next()
            assert told.keys() == first.keys() - FIRST
            assert (told["v"], told["namespace"], told["epoch"]) == (1, "default", first["epoch"])
            assert told["timebase"] == first["timebase"]
            assert told["from"] == before["seq"] <= told["seq"]
            assert told["read_at"] > before["read_at"]
            assert told["ttl_ms"] == first["ttl_ms"]
            before = told
        took = time.monotonic() - begun
    assert took < 3 * first["ttl_ms"] / 1000, "a beat is a quarter of the ttl"
    assert before["read_at"] - first["received_at"] == pytest.approx(took * 1e6, abs=600_000)


def test_a_flip_is_a_frame(service: LeaseService, name: str) -> None:
    """With its entry, continuing what the stream has shown; notes are stubs there too."""
    with Frames(service) as frames:
        known = frames.next()
        hold = service.kill(f"run:{name}")
        told = frames.at(hold)
        (entry,) = (parse_entry(each, namespace="default", epoch=told["epoch"]) for each in told["entries"])
        assert isinstance(entry, Kill)
        assert (entry.prev_hash, entry.position) == (known["hash"], Position(told["seq"], told["hash"]))
        service.revive(f"run:{name}", hold)
        service.note()
        entries: list[dict[str, Any]] = []
        while len(entries) < 2:
            told = frames.next()
            entries += told["entries"]
        assert entries[0]["kind"] == "revive"
        assert parse_stub(entries[1]).position == Position(told["seq"], told["hash"])


def test_a_flip_does_not_wait_for_a_beat(service: LeaseService, name: str) -> None:
    """Ten flips, each sent as soon as it is read: a beat each would take 2.5 s."""
    with Frames(service) as frames:
        frames.next()
        begun = time.monotonic()
        for number in range(10):
            frames.at(service.kill(f"run:{name}-{number}"))
        assert time.monotonic() - begun < 2


def test_an_ack_is_taken(service: LeaseService) -> None:
    """Of any position of this log; there is nothing to say about it."""
    reply = service.ack(acking(service))
    assert (reply.status, reply.body) == (204, b"")
    service.note()
    assert service.ack(acking(service)).status == 204
    without = parse(acking(service))
    del without["namespace"]
    assert service.ack(canonical(without)).status == 204


@pytest.mark.parametrize(
    "members", [{"seq": 0}, {"seq": "1"}, {"seq": True}, {"epoch": None}, {"hash": "short"}, {"worker": ""}], ids=str
)
def test_a_malformed_ack_is_refused(service: LeaseService, members: dict[str, Any]) -> None:
    """Each member as in a lease request; there is nothing to acknowledge before the first entry."""
    assert code(service.ack(acking(service, **members))) == (422, "invalid_fields")


@pytest.mark.parametrize("missing", ["worker", "instance", "epoch", "seq", "hash"])
def test_every_member_of_an_ack_is_needed(service: LeaseService, missing: str) -> None:
    """Only the namespace may be left out, and nothing be added."""
    body = parse(acking(service))
    del body[missing]
    assert code(service.ack(canonical(body))) == (422, "invalid_fields")
    assert code(service.ack(canonical({**parse(acking(service)), "nonce": "x"}))) == (422, "invalid_fields")


# -- the client -------------------------------------------------------------------------------------------------------


class Line:
    """What carries the client's requests to the service."""

    def __init__(self, service: LeaseService) -> None:
        self._service = service
        self._reading: Streamed | None = None

    def post(self, path: str, body: bytes, *, deadline_s: float, limit: int) -> Reply:  # noqa: ARG002  # the port's
        """Ask, or tell."""
        return self._service.ack(body) if path == "/v1/acks" else self._service.ask(body)

    def stream(self, path: str, body: bytes, *, deadline_s: float) -> Streamed:  # noqa: ARG002  # the port's
        """Ask for a stream."""
        assert path == "/v1/lease"
        self._reading = self._service.stream(body)
        return self._reading

    def interrupt(self) -> None:
        """Wake whoever reads."""
        if self._reading is not None:
            self._reading.interrupt()

    def rotate(self, later_s: float = 0.0) -> float:
        """There is no other."""
        return later_s

    def close(self) -> None:
        """Nothing to give back."""


def applied(switch: KillSwitch, seq: int) -> None:
    """Wait until a client has applied a position; fail after 5 s."""
    end = time.monotonic() + 5
    while switch.position.seq < seq:
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("stream", [True, False], ids=["streams", "single frames"])
def test_the_client_lives_on_either(service: LeaseService, name: str, *, stream: bool) -> None:
    """Entering, a freeze, a kill and a blip: the same client, the same answers, by streams and by single frames."""
    driver = Driver(connect=lambda: Line(service))
    with KillSwitch("https://h", token=service.token, driver=driver, stream=stream) as switch:
        with switch.run(name, tenant=name) as run, switch.run(f"{name}-2") as other:
            run.check(name)
            applied(switch, service.kill(f"capability:{name}"))
            with pytest.raises(CapabilityFrozen):
                run.check(name)
            hold = service.kill(f"tenant:{name}")
            service.revive(f"tenant:{name}", hold)
            applied(switch, hold + 1)
            with pytest.raises(Killed, match=r"killed and revived|killed by"):
                run.check(name)
            other.check("read_inbox")
        with switch.run(name, tenant=name) as run:
            run.check("read_inbox")
