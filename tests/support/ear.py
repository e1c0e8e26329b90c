"""An ear: what a doorbell's listener heard, and a wait for it."""

from __future__ import annotations

import threading
import time


class Ear:
    """Listens to a doorbell: hand it to ``listen``."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self._more = threading.Condition()

    def __call__(self, seq: int) -> None:
        """Hear one ring."""
        with self._more:
            self.heard.append(seq)
            self._more.notify_all()

    def hears(self, seq: int, *, within_s: float, after: int = 0) -> bool:
        """Wait until a ring for ``seq`` is among those heard, the first ``after`` left aside; return whether it was."""
        until = time.monotonic() + within_s
        with self._more:
            while seq not in self.heard[after:]:
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._more.wait(left)
            return True
