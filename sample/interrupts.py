"""Ctrl-C, SIGTERM and a closed terminal end the fleet in order, once."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Somebody wants the sample to end."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise Interrupted at the first such signal, and ignore those after it: nothing interrupts the tidying up."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted

    # Started under nohup, SIGHUP is ignored and stays so.
    taken = [each for each in _SIGNALS if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN]
    before = {each: signal.signal(each, interrupt) for each in taken}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
