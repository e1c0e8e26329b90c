"""Frames as a client reads them: what a reply says, whether it belongs to this client's log, and the fold it leads to.

Pure. A frame that breaks a rule is refused whole: nothing is taken from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from haltline.canonical import parse
from haltline.errors import InvalidDocument, InvalidEntry, PositionGap
from haltline.flips import Entry, Position, Stub, is_epoch, is_hash, parse_entry, parse_stub
from haltline.keys import StampKey, parse_keys
from haltline.lease import SPAN_MAX_US
from haltline.replica import Replica, from_snapshot
from haltline.verdict import Reason

FRAME_VERSION: Final = 1
"""The newest frame version that this client understands; a newer one means stopped."""

FRAME_MAX_BYTES: Final = 64 * 1024 * 1024
"""The largest frame that is read: a snapshot of 100,000 holds takes about 30 MiB."""

FRAME_TYPE: Final = "application/json"
"""The content type of a single frame."""

STREAM_TYPE: Final = "application/jsonl"
"""The content type of a stream of frames, one a line."""

Frame: TypeAlias = dict[str, Any]
"""A JSON object that claims to be a frame."""

_LATER_DIGITS: Final = 9

_ONLY_FIRST: Final = frozenset({"nonce", "received_at", "snapshot", "ack_within_ms", "stamp_keys"})


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP reply, as the transport read it.

    Attributes:
        status: the status code.
        content_type: the header's value as it came; empty if there was none.
        encoded: whether the reply names a content encoding.
        body: the whole body.
        later: the value of Retry-After as it came; empty if there was none.
    """

    status: int
    content_type: str
    encoded: bool
    body: bytes
    later: str = ""


class Refused(Exception):
    """A frame from which nothing is taken.

    Attributes:
        reason: why, as a check that comes after the lease's end says it.
        detail: the same, one sentence.
        drop: whether it proves something so wrong that the running lease ends too.
        gap: whether it does not continue what this client knows, which asking anew mends.
        later_s: for how long whoever answered does not want to be asked again, seconds.
    """

    def __init__(self, reason: Reason, detail: str, *, drop: bool, gap: bool = False, later_s: float = 0.0) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.drop, self.gap, self.later_s = reason, detail, drop, gap, later_s


def frame_of(reply: Reply, kind: str) -> Frame:
    """Return the members of a reply that is a frame, whatever they say.

    Args:
        reply: the reply.
        kind: the content type that was asked for.

    Raises:
        Refused: it is a problem, or something else answers.
    """
    if reply.status != 200:
        raise _status_refused(reply)
    if reply.encoded or reply.content_type != kind:
        raise Refused(
            Reason.MALFORMED,
            f"the reply is not a frame (content type {reply.content_type!r:.60}): something else answers here",
            drop=False,
        )
    return parsed(reply.body)


def parsed(line: bytes) -> Frame:
    """Return the members of a line that is a frame, whatever they say.

    Raises:
        Refused: it is not a JSON object.
    """
    try:
        frame = parse(line, scan_depth=False)
    except InvalidDocument as error:
        raise Refused(Reason.MALFORMED, f"the reply is not a frame: {error}", drop=False) from error
    if not isinstance(frame, dict):
        raise Refused(Reason.MALFORMED, "the reply is not a frame: not an object", drop=False)
    return frame


def check_log(frame: Frame, *, namespace: str, pinned: str) -> None:
    """Check that a frame can be understood, and is of the log that this process knows.

    Args:
        frame: the frame.
        namespace: the namespace that the token is of.
        pinned: the epoch of the log that the process knows; empty if it knows none.

    Raises:
        Refused: it is newer than this client, or of another log.
    """
    version, epoch = frame.get("v"), frame.get("epoch")
    if type(version) is not int or version > FRAME_VERSION:
        raise Refused(Reason.MALFORMED, f"frame version {version!r:.20} is newer: update this client", drop=True)
    if frame.get("namespace") != namespace:
        raise Refused(
            Reason.FOREIGN,
            f"the service keeps namespace {frame.get('namespace')!r:.50}, the token is of {namespace!r}",
            drop=True,
        )
    if not is_epoch(epoch) or (pinned and epoch != pinned):
        raise Refused(Reason.FOREIGN, f"the log's epoch is {epoch!r:.30}, this process knows {pinned!r}", drop=True)


def check_later(frame: Frame, timebase: str) -> None:
    """Check that a frame continues its stream.

    Args:
        frame: a frame that is not the first one of its stream.
        timebase: the timebase of the first one.

    Raises:
        Refused: it has what only a first frame has, or its times were read on another node's clock.
    """
    if not _ONLY_FIRST.isdisjoint(frame):
        raise Refused(Reason.MALFORMED, "a first frame stands in the middle of a stream", drop=True)
    if frame.get("timebase") != timebase:
        raise Refused(Reason.MALFORMED, "the timebase changed within a stream: asking anew", drop=False, gap=True)


def timebase_of(frame: Frame) -> str:
    """Return the name of the clock that a frame's times were read on.

    Raises:
        Refused: it has none.
    """
    timebase = frame.get("timebase")
    if type(timebase) is not str or not timebase:
        raise Refused(Reason.MALFORMED, "timebase is missing or malformed", drop=False)
    return timebase


def keys_of(frame: Frame) -> tuple[StampKey, ...] | None:
    """Return the stamp keys that a first frame brings; None if it brings none, and those of before stay.

    Raises:
        Refused: they are malformed. What it says repeats nothing of them.
    """
    if "stamp_keys" not in frame:
        return None
    try:
        return parse_keys(frame["stamp_keys"])
    except InvalidDocument as error:
        raise Refused(Reason.MALFORMED, str(error), drop=False) from None


def span_of(frame: Frame, received_at: object) -> tuple[int, int]:
    """Return how long after the request the truth was read, microseconds, and the ttl, milliseconds.

    Args:
        frame: the frame.
        received_at: what the first frame says of when the request came, on the same clock.

    Raises:
        Refused: the read is no proof, or not dated.
    """
    read, ttl_ms = frame.get("read_at"), frame.get("ttl_ms")
    if type(received_at) is not int or type(read) is not int or type(ttl_ms) is not int or ttl_ms < 1:
        raise Refused(Reason.MALFORMED, "received_at, read_at or ttl_ms is missing", drop=False)
    # Strictly later: equal readings of a clock that stood still prove nothing.
    if not 0 < read - received_at <= SPAN_MAX_US:
        raise Refused(Reason.MALFORMED, "the truth was not read after the request, or much later: no proof", drop=False)
    return read - received_at, ttl_ms


def fold(frame: Frame, held: Replica, *, floor: int) -> Replica | None:
    """Return the replica with a frame folded in: whole, contiguous and never going back.

    Args:
        frame: the frame, of this replica's log.
        held: what the process knows.
        floor: a position that the service has shown or was told of on this very stream.

    Returns:
        the same object where nothing is new; None where the process knows more already, from another stream.

    Raises:
        Refused: it does not continue what is known, or is of another history.
    """
    tenants = _view_of(frame, held)
    start, seq, head = frame.get("from"), frame.get("seq"), frame.get("hash")
    if type(start) is not int or type(seq) is not int or not is_hash(head) or not 0 <= start <= seq:
        raise Refused(Reason.MALFORMED, "from, seq or hash is missing or malformed", drop=False)
    if seq < floor:
        raise Refused(
            Reason.REGRESS,
            f"the service's log ends at {seq}, this client has seen {max(floor, held.position.seq)}: a restored "
            f"backup, a lost failover or another database",
            drop=True,
        )
    if seq < held.position.seq:
        return None
    try:
        folded = _base(frame, held, tenants).extend(_entries(frame))
    except PositionGap as gap:
        raise Refused(Reason.REGRESS, str(gap), drop=True, gap=True) from gap
    except InvalidDocument as error:
        # Bytes that answer our own nonce but cannot be understood may hold a kill: stopped, at once.
        raise Refused(Reason.MALFORMED, str(error), drop=True) from error
    if folded.position != Position(seq, str(head)):
        raise Refused(Reason.REGRESS, f"the frame's entries do not end at its own position {seq}", drop=True, gap=True)
    # The same object while nothing was folded in: a run's memory of its verdict stays valid.
    return held if folded.position == held.position and folded.epoch == held.epoch else folded


def _view_of(frame: Frame, held: Replica) -> frozenset[str] | None:
    """Return the tenants whose kills the frame shows; None for all. It never changes in the life of a process."""
    listed = frame.get("tenants", 0)
    if listed is not None and not (isinstance(listed, list) and all(type(each) is str for each in listed)):
        raise Refused(Reason.MALFORMED, "tenants is missing or malformed", drop=False)
    view = None if listed is None else frozenset(listed)
    if held.epoch and held.tenants != view:
        # Kills that came as stubs under the old view are not known: what was folded proves nothing for the new.
        raise Refused(Reason.FOREIGN, "the token is bound to other tenants than before: start anew", drop=True)
    return view


def _base(frame: Frame, held: Replica, tenants: frozenset[str] | None) -> Replica:
    """Return what the frame's entries are folded into: what is known, or the frame's own snapshot."""
    start = frame["from"]
    if "snapshot" not in frame:
        if start > held.position.seq or not held.epoch:
            raise Refused(Reason.MALFORMED, f"the frame starts at {start}: entries are missing", drop=True, gap=True)
        return held
    base = from_snapshot(frame["snapshot"], namespace=frame["namespace"], epoch=frame["epoch"], tenants=tenants)
    if base.position.seq != start or base.position.seq < held.position.seq:
        raise Refused(Reason.REGRESS, "the snapshot is older than what this client has seen", drop=True)
    if base.position.seq == held.position.seq and base.position != held.position:
        raise Refused(Reason.REGRESS, "the snapshot is of a log with another history", drop=True)
    return base


def _entries(frame: Frame) -> list[Entry | Stub]:
    listed = frame.get("entries")
    if not isinstance(listed, list):
        raise InvalidEntry("entries are missing")
    entries: list[Entry | Stub] = []
    for members in listed:
        if isinstance(members, dict) and len(members) == 2:
            entries.append(parse_stub(members))
        else:
            entries.append(parse_entry(members, namespace=frame["namespace"], epoch=frame["epoch"]))
    return entries


def _status_refused(reply: Reply) -> Refused:
    """Return the refusal that a status other than 200 means."""
    told, code = _problem(reply)
    said = f"the service answered {reply.status}{told}"
    if reply.status in (401, 403):
        return Refused(Reason.REFUSED, f"{said}: check HALTLINE_TOKEN", drop=True)
    if reply.status == 409:
        return Refused(Reason.FOREIGN if code == "foreign" else Reason.REGRESS, said, drop=True)
    if 300 <= reply.status < 400:
        return Refused(Reason.MALFORMED, f"{said}, a redirect, which is never followed", drop=False)
    if reply.status >= 500 or reply.status == 429:
        return Refused(Reason.UNREACHABLE, said, drop=False, later_s=_later_s(reply))
    return Refused(Reason.REFUSED, said, drop=False)


def _later_s(reply: Reply) -> float:
    """Return what Retry-After says, seconds; 0 for a date, which would compare two clocks, and for anything else."""
    value = reply.later
    return float(value) if value.isascii() and value.isdigit() and len(value) <= _LATER_DIGITS else 0.0


def _problem(reply: Reply) -> tuple[str, str]:
    """Return what a problem+json reply says, bounded and printable, and its code."""
    if reply.content_type.partition(";")[0].strip() != "application/problem+json":
        return "", ""
    try:
        members = parse(reply.body[:4096])
    except InvalidDocument:
        return "", ""
    if not isinstance(members, dict):
        return "", ""
    detail, code = members.get("detail"), members.get("code")
    told = f" ({ascii(detail)[1:-1]:.200})" if isinstance(detail, str) else ""
    return told, code if isinstance(code, str) else ""
