"""A process that does nothing but subscribe to Redis, built as an idle worker is: the floor of bench.propagation.

One thread blocks in recv() and keeps the newest number that was published; the rest of the process looks every 0.1 ms
whether there is a newer one, as bench.idle_worker looks at its lease.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time

from bench.crowd import CHUNK, LOOPBACK, say
from bench.idle_worker import LOOK_S
from bench.subscribers import newest, subscribe


class Subscription:
    """One subscription.

    Attributes:
        number: the newest number that was published.
    """

    def __init__(self, port: int, channel: str) -> None:
        """Subscribe, and start the thread that reads."""
        self.number = 0
        self._connection = socket.create_connection((LOOPBACK, port))
        self._connection.sendall(subscribe(channel))
        self._connection.recv(CHUNK)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        data = b""
        while piece := self._connection.recv(CHUNK):
            data += piece
            number = newest(data)
            if number:
                self.number = number
                data = b""


def main() -> int:
    """Work until standard input ends."""
    given = json.loads(sys.stdin.readline())
    subscription = Subscription(given["port"], given["channel"])
    for line in sys.stdin:
        number = json.loads(line)["number"]
        say({"going": number})
        while subscription.number < number:
            time.sleep(LOOK_S)
        say({"stopped": time.monotonic_ns()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
