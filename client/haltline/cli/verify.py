"""``haltline verify``: check an exported log, offline and without trusting whoever kept it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

from haltline.cli.audit import MAX_LINE_BYTES, Audit
from haltline.cli.exits import Ended, Exit
from haltline.cli.export import position
from haltline.cli.session import Session
from haltline.errors import ChainBroken
from haltline.flips import Position

_BATCH: Final = 5_000


@dataclass(frozen=True, slots=True)
class Check:
    """What to hold a log against.

    Attributes:
        head: a position seen elsewhere, which the log must have.
        after: the position that its first entry must continue.
    """

    head: Position | None = None
    after: Position = Position()


def check_of(head: str | None, after: str | None) -> Check:
    """Return the check that the options ask for.

    Raises:
        Ended: one of them is not ``SEQ:HASH``, or the witness is from before the first entry.
    """
    seen = _position("--head", head) if head is not None else None
    start = _position("--after", after) if after is not None else Position()
    if seen is not None and seen.seq <= start.seq and seen != start:
        raise Ended(
            Exit.USAGE, f"--head {seen.seq} is not after --after {start.seq}: nothing in the file could meet it"
        )
    return Check(seen, start)


def verify(session: Session, file: str, check: Check) -> Exit:
    """Check an exported log, and show what it adds up to.

    Args:
        session: the command.
        file: its path, or ``-`` for standard input.
        check: what to hold it against.

    Raises:
        Ended: it cannot be read, or it is broken.
    """
    audit = Audit(after=check.after, witness=check.head)
    gc.disable()  # a million small values and not one cycle: looking for cycles costs a tenth of the time
    try:
        with _opened(file) as source, session.screen.progress("verifying", total=None, unit="entries") as progress:
            _prove(audit, source, progress)
    except OSError as error:
        raise Ended(Exit.USAGE, f"{file} cannot be read: {error.strerror or error}") from None
    except ChainBroken as error:
        members = {"entries": audit.entries, "proven": _told(audit.position), "at_seq": error.seq}
        good = f"Proven up to entry {audit.position.seq}." if audit.entries else "No entry of it is proven."
        raise Ended(Exit.FAILED, f"BROKEN: {error}", good, members=members) from None
    finally:
        gc.enable()
    _show(session, audit, check)
    return Exit.DONE


def _position(option: str, text: str) -> Position:
    found = position(text)
    if found is None:
        raise Ended(Exit.USAGE, f"{option} is not SEQ:HASH, a number and 64 hexadecimal digits, as export prints it")
    if found.seq == 0 and found != Position():
        raise Ended(Exit.USAGE, f"{option}: before the first entry there is only position 0 with 64 zeros")
    return found


def _opened(file: str) -> AbstractContextManager[BinaryIO]:
    return nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb")


def _prove(audit: Audit, source: BinaryIO, progress: Callable[[int], None]) -> None:
    lines = _lines(source, audit)
    while batch := list(islice(lines, _BATCH)):
        audit.take(batch)
        progress(audit.entries)
    audit.end()


def _lines(source: BinaryIO, audit: Audit) -> Iterator[bytes]:
    while line := source.readline(MAX_LINE_BYTES):
        if len(line) == MAX_LINE_BYTES:
            at = audit.position.seq + 1
            raise ChainBroken(f"the line after entry {at - 1} is longer than any entry", seq=at)
        yield line


def _show(session: Session, audit: Audit, check: Check) -> None:
    screen = session.screen
    head, after = audit.position, check.after
    if not audit.entries:
        screen.say(f"good: nothing follows position {after.seq}")
    else:
        notes = audit.entries - audit.kills - audit.revives
        screen.say(f"good: {audit.entries} entries, {audit.kills} kills, {audit.revives} revives, {notes} notes")
        screen.say(f"log    namespace {audit.namespace}, epoch {audit.epoch}")
    screen.say(f"head   {head.seq}:{head.hash}")
    if check.head is None:
        screen.say("No outside witness: whoever could rewrite the whole file could have redone or shortened it.")
        screen.say("Hold it against a head that was kept elsewhere: --head SEQ:HASH")
    else:
        screen.say(f"witness met at entry {check.head.seq}")
    since = "" if after.seq == 0 else f" made after position {after.seq}"
    if audit.active:
        screen.say(f"holds active at the end{since}: {len(audit.active)}")
        held = sorted(audit.active.values(), key=lambda each: each.seq)
        screen.table(
            ("target", "hold", "by", "at", "reason"),
            [(each.target, each.seq, each.actor, each.at, each.reason) for each in held],
        )
    else:
        screen.say(f"holds active at the end{since}: none")
    screen.json(_members(audit, check))


def _members(audit: Audit, check: Check) -> dict[str, Any]:
    return {
        "ok": True,
        "outcome": "done",
        "exit": 0,
        "entries": audit.entries,
        "kills": audit.kills,
        "revives": audit.revives,
        "namespace": audit.namespace,
        "epoch": audit.epoch,
        "after": _told(check.after),
        "head": _told(audit.position),
        "witness": _told(check.head) if check.head is not None else None,
        "holds": [audit.active[seq].members() for seq in sorted(audit.active)],
    }


def _told(where: Position) -> dict[str, Any]:
    return {"seq": where.seq, "hash": where.hash}
