"""Saying loudly, in the log of the process, that the service's log is not the one that this process knows."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Final

from haltline.native import make_thread, patched
from haltline.verdict import Reason, Stop

_LOUD: Final = frozenset({Reason.REGRESS, Reason.FOREIGN})
"""What somebody has to look into: a restored backup, a lost failover, another database."""


class Loud:
    """Says it once each time that it happens, at level ERROR of the logger ``haltline``."""

    def __init__(self) -> None:
        self._said: Stop | None = None
        if patched():
            import logging  # noqa: F401  # now: import locks are gevent's, and no native thread should wait on one

    def heard(self, stop: Stop) -> None:
        """Say it if it is worth it; from the thread that renews, never from a check.

        Args:
            stop: what a check that comes after the lease's end would say.
        """
        loud = stop if stop.reason in _LOUD else None
        if loud is not None and loud != self._said:
            if patched():
                # A handler's lock is gevent's: only a thread that renews nothing may wait on it.
                with suppress(RuntimeError):
                    make_thread(partial(_say, loud), name="haltline-log").start()
            else:
                _say(loud)
        self._said = loud


def _say(stop: Stop) -> None:
    import logging  # 5 ms that importing the client need not cost

    logging.getLogger("haltline").error("no run may go on (%s): %s", stop.reason.value, stop.detail)
