"""Several doorbells as one: a flip rings the node where it was made at once, whatever becomes of the others."""

from __future__ import annotations

from collections.abc import Callable

from app.service.doorbell import BackgroundBell, Doorbell


class Chorus:
    """The doorbell of this process, and one that other processes hear.

    Args:
        here: rings in this process; it never waits.
        everywhere: rings everywhere, from a thread of its own: a Redis that is frozen delays nobody here.
    """

    def __init__(self, here: Doorbell, everywhere: BackgroundBell) -> None:
        self._here = here
        self._everywhere = everywhere

    def ring(self, seq: int) -> None:
        """Tell every listener of this process now, and those of the others soon.

        Raises:
            DoorbellUnavailable: it is closed.
        """
        self._everywhere.ring(seq)
        self._here.ring(seq)

    def listen(self, heard: Callable[[int], None]) -> None:
        """Call ``heard`` whenever somebody rings, here or elsewhere; twice for one flip made here."""
        self._here.listen(heard)
        self._everywhere.listen(heard)

    def start(self) -> None:
        """Begin to hear other processes."""
        self._here.start()
        self._everywhere.start()

    def close(self) -> None:
        """End both."""
        self._here.close()
        self._everywhere.close()
