"""Mistakes in following a stream, each of which lets a check pass after a kill took effect."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Final

from haltline.canonical import canonical, parse
from haltline.flips import Position
from haltline.following import Following
from haltline.lease import Lease, Readings
from haltline.renewal import Ask, Renewal, Then


class Careless(Following):
    """A client that is about to make a mistake: it looks at each frame before it judges it."""

    def heard(self, line: bytes, now: Readings) -> Then:
        """Judge a frame, carelessly."""
        frame = parse(line)
        self.mistake(frame, now)
        return super().heard(canonical(frame), now)

    def mistake(self, frame: dict[str, Any], now: Readings) -> None:
        """Make it."""

    def received_at(self, frame: dict[str, Any]) -> int:
        """Return what the frame's read is counted from."""
        received = frame["received_at"] if self._received_at is None else self._received_at
        assert isinstance(received, int)
        return received


class DatedFromArrival(Careless):
    """A lease is counted from when its news arrived."""

    def mistake(self, frame: dict[str, Any], now: Readings) -> None:
        """Pretend that the log was read just now."""
        then = now.boot - max(frame["read_at"] - self.received_at(frame), 0) * 1_000
        self._ask = replace(self._ask, t0=Readings(then, then, then, then))


class JumpsGaps(Careless):
    """A frame moves the position without its entries."""

    def mistake(self, frame: dict[str, Any], now: Readings) -> None:  # noqa: ARG002  # see the class
        """Take the frame's own word for what it continues."""
        lease = self._renewal.lease
        if "snapshot" not in frame and frame["from"] > lease.replica.position.seq:
            entries = frame["entries"]
            before = entries[0].get("prev_hash", "0" * 64) if entries else frame["hash"]
            replica = replace(lease.replica, position=Position(frame["from"], before))
            self._renewal.lease = Lease(replica, lease.until, lease.stop)


class MixesTimebases(Careless):
    """Times of two nodes' clocks are counted together."""

    def mistake(self, frame: dict[str, Any], now: Readings) -> None:  # noqa: ARG002  # see the class
        """Take every timebase for the first one."""
        frame["timebase"] = self._timebase or frame["timebase"]


class AcceptsEqual(Careless):
    """A read is taken for later than the request if both show the same time."""

    def mistake(self, frame: dict[str, Any], now: Readings) -> None:  # noqa: ARG002  # see the class
        """Round it up."""
        if frame["read_at"] == self.received_at(frame):
            frame["read_at"] += 1


class AcceptsEarlier(Careless):
    """A read is taken for later than the request whatever it says."""

    def mistake(self, frame: dict[str, Any], now: Readings) -> None:  # noqa: ARG002  # see the class
        """Round it up."""
        frame["read_at"] = max(frame["read_at"], self.received_at(frame) + 1)


class NewestT0(Careless):
    """An older stream's frames are counted from the newest request."""

    newest: ClassVar[dict[int, Ask]] = {}

    def __init__(self, renewal: Renewal, ask: Ask) -> None:
        super().__init__(renewal, ask)
        self.newest[id(renewal)] = ask

    def mistake(self, frame: dict[str, Any], now: Readings) -> None:  # noqa: ARG002  # see the class
        """Take the newest."""
        self._ask = replace(self._ask, t0=self.newest[id(self._renewal)].t0)


class TtlOfTheFirst(Careless):
    """A ttl counts that may have been lowered since."""

    _ttl_ms = 0

    def mistake(self, frame: dict[str, Any], now: Readings) -> None:  # noqa: ARG002  # see the class
        """Keep it."""
        self._ttl_ms = self._ttl_ms or frame["ttl_ms"]
        frame["ttl_ms"] = self._ttl_ms


MUTANTS: Final = {
    mutant.__name__: mutant
    for mutant in (
        DatedFromArrival, JumpsGaps, MixesTimebases, AcceptsEqual, AcceptsEarlier, NewestT0, TtlOfTheFirst,
    )
}  # fmt: skip
