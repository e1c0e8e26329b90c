"""``haltline export``: the whole log as JSON lines, and never a part of it that looks whole.

The service promises the last entry in a header before the first line. The file gets its name only when that entry has
come as the last line; until then it is ``FILE.part``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from haltline.canonical import MAX_INTEGER, parse
from haltline.cli.exchange import Ask, Body, answer_of, told
from haltline.cli.exits import Ended, Exit
from haltline.cli.session import REACH, Session, refused
from haltline.errors import InvalidDocument, ServiceError
from haltline.flips import Position

PATH: Final = "/v1/log/export?format=jsonl"

_HEAD: Final = re.compile(r"(0|[1-9][0-9]{0,15}):([0-9a-f]{64})", re.ASCII)
_PROBLEM_BYTES: Final = 64 * 1024
_LINE_BYTES: Final = 1024 * 1024


@dataclass(slots=True)
class Tail:
    """What has come of an export so far.

    Attributes:
        lines: how many whole lines.
        size: how many bytes.
        last: the last whole line, or its end if it was too long.
        rest: what came after it.
    """

    lines: int = 0
    size: int = 0
    last: bytes = b""
    rest: bytes = b""

    def take(self, chunk: bytes) -> None:
        """Count a part of the body."""
        self.size += len(chunk)
        new = chunk.count(b"\n")
        if new:
            self.lines += new
            whole, _, rest = (self.rest + chunk).rpartition(b"\n")
            self.last, self.rest = whole[whole.rfind(b"\n") + 1 :][-_LINE_BYTES:], rest
        else:
            self.rest = (self.rest + chunk)[-_LINE_BYTES:]


def position(text: str) -> Position | None:
    """Return the position that ``SEQ:HASH`` names, or None if it names none."""
    found = _HEAD.fullmatch(text)
    return Position(int(found[1]), found[2]) if found is not None and int(found[1]) <= MAX_INTEGER else None


def export(session: Session, output: str, *, first: int) -> Exit:
    """Write the log to a file, or to standard output for ``-``.

    Args:
        session: the command.
        output: the file's path, or ``-``.
        first: the seq of the first entry, 1 or more.

    Raises:
        Ended: it could not be read whole, or not be written.
    """
    wire, screen = session.wire, session.screen
    path = PATH if first == 1 else f"{PATH}&from={first}"
    tail = Tail()
    try:
        with wire.stream(Ask("GET", path), session.timeout_s) as response, ExitStack() as stack:
            promised = _promised(response)
            total = max(0, promised.seq - first + 1)
            sink = stack.enter_context(_sink(output))
            told_progress = stack.enter_context(screen.progress("exporting", total=total, unit="entries"))
            _copy(response, sink, tail, told_progress)
            flaw = _flaw(tail, promised, total)
            if flaw is not None:
                raise Ended(Exit.FAILED, f"BROKEN OFF: {flaw}", _left(output))
    except ServiceError as error:
        if tail.size == 0:
            raise Ended(Exit.NOT_DONE, f"no answer: {error}", REACH) from error
        raise Ended(Exit.FAILED, f"BROKEN OFF after {tail.lines} entries: {error}", _left(output)) from error
    except OSError as error:
        raise Ended(Exit.FAILED, f"cannot write {output}: {error.strerror or error}", _left(output)) from error
    head = f"{promised.seq}:{promised.hash}"
    summary = f"exported {tail.lines} entries, {tail.size} bytes; the last is {head}"
    if output == "-":
        screen.tell(summary)
    else:
        screen.say(summary)
        screen.say(f"keep that pair elsewhere, and check: haltline verify {output} --head {head}")
        screen.json(
            {
                "ok": True,
                "outcome": "done",
                "exit": 0,
                "file": output,
                "entries": tail.lines,
                "bytes": tail.size,
                "head": {"seq": promised.seq, "hash": promised.hash},
            }
        )
    return Exit.DONE


def _promised(response: Body) -> Position:
    if response.status != 200:
        answer = answer_of(response, response.read(_PROBLEM_BYTES))
        raise refused(told(answer), answer.status, answer.members)
    promised = position(response.header("haltline-head"))
    media = response.header("content-type").partition(";")[0].strip().lower()
    if promised is None or media != "application/jsonl" or response.header("content-encoding"):
        raise Ended(Exit.REFUSED, "refused: the answer does not promise a whole log: check the address")
    return promised


def _copy(response: Body, sink: BinaryIO, tail: Tail, told_progress: Callable[[int], None]) -> None:
    for chunk in response.chunks():
        sink.write(chunk)
        tail.take(chunk)
        told_progress(tail.lines)


def _flaw(tail: Tail, promised: Position, total: int) -> str | None:
    if tail.rest:
        return f"it ends inside entry {tail.lines + 1} of {total}"
    if tail.lines != total:
        return f"{tail.lines} entries came, {total} were promised"
    if total == 0:
        return None
    try:
        last = parse(tail.last)
    except InvalidDocument as error:
        return f"the last entry is {error}"
    if not isinstance(last, dict) or (last.get("seq"), last.get("hash")) != (promised.seq, promised.hash):
        return f"the last entry is not the promised {promised.seq}:{promised.hash}"
    return None


def _left(output: str) -> str:
    return "What came is not a whole log." if output == "-" else f"What came, if anything, is in {output}.part."


@contextmanager
def _sink(output: str) -> Iterator[BinaryIO]:
    """Yield what to write to; a file gets its name when the block ends without an error."""
    if output == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(output)
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
