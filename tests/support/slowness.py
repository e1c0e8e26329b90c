"""How much slower this machine is now than one that has nothing else to do: for bounds that must hold on a busy one."""

from __future__ import annotations

import hashlib
import threading
import time
from types import TracebackType
from typing import Final, Self

NOMINAL_S: Final = 0.010
"""How long the piece of work takes on an idle processor of the kind that the bounds were set on, seconds."""

_ROUNDS: Final = 27_000
_PAUSE_S: Final = 0.1


def piece_s() -> float:
    """Do the piece of work, and return how long it took, seconds; others that want the processor count."""
    began = time.perf_counter()
    data = b""
    for _ in range(_ROUNDS):
        data = hashlib.sha256(data).digest()
    return time.perf_counter() - began


class Slowness:
    """Does a piece of work every tenth of a second while its block lasts.

    Attributes:
        pieces: how long each took, seconds.
    """

    def __init__(self) -> None:
        self.pieces: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._over.wait(_PAUSE_S):
            self.pieces.append(piece_s())

    @property
    def factor(self) -> float:
        """How many times longer than on that idle processor the pieces took on average; never below 1."""
        pieces = list(self.pieces)
        return max(sum(pieces) / len(pieces) / NOMINAL_S, 1.0) if pieces else 1.0
