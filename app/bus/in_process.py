"""The doorbell of a single process: rings by calling its listeners."""

from __future__ import annotations

from collections.abc import Callable


class InProcessDoorbell:
    """A doorbell that is heard in this process only: all that an embedded install needs."""

    def __init__(self) -> None:
        self._listeners: tuple[Callable[[int], None], ...] = ()

    def ring(self, seq: int) -> None:
        """Tell every listener of this process that the log has reached ``seq``."""
        for heard in self._listeners:
            heard(seq)

    def listen(self, heard: Callable[[int], None]) -> None:
        """Call ``heard`` with a position whenever somebody rings."""
        self._listeners = (*self._listeners, heard)
