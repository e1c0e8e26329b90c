"""The doorbell of a single process: rings by calling its listeners."""

from __future__ import annotations

from collections.abc import Callable

from app.service.doorbell import DoorbellUnavailable


class InProcessDoorbell:
    """A doorbell that is heard in this process only: all that an embedded install needs."""

    def __init__(self) -> None:
        self._listeners: tuple[Callable[[int], None], ...] = ()
        self._closed = False

    def ring(self, seq: int) -> None:
        """Tell every listener of this process that the log has reached ``seq``.

        Raises:
            DoorbellUnavailable: it is closed.
        """
        if self._closed:
            raise DoorbellUnavailable("the doorbell is closed")
        for heard in self._listeners:
            heard(seq)

    def listen(self, heard: Callable[[int], None]) -> None:
        """Call ``heard`` with a position whenever somebody rings."""
        self._listeners = (*self._listeners, heard)

    def start(self) -> None:
        """Do nothing: there is no other process to hear."""

    def close(self) -> None:
        """Ring no more."""
        self._closed = True
