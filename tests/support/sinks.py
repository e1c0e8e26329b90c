"""A sink for effects: whoever has one sends it a line, and it counts them in the process of the test."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from types import TracebackType
from typing import Self

from tests.support.ports import LOOPBACK


class Sink:
    """Counts the lines that arrive; a context manager."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._server = socket.create_server((LOOPBACK, 0))
        self.port: int = self._server.getsockname()[1]

    def __enter__(self) -> Self:
        """Listen."""
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take no more."""
        self._server.close()

    @property
    def seen(self) -> Counter[str]:
        """Return how often each line came so far."""
        with self._lock:
            return self._seen.copy()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._count, args=(connection,), daemon=True).start()

    def _count(self, connection: socket.socket) -> None:
        with connection, connection.makefile("r") as lines:
            for line in lines:
                with self._lock:
                    self._seen[line.strip()] += 1


def effect(port: int, line: str) -> None:
    """Have one effect."""
    with socket.create_connection((LOOPBACK, port), timeout=30) as connection:
        connection.sendall(f"{line}\n".encode())
