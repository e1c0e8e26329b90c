"""The doorbell between nodes: Redis Pub/Sub, which may lose, repeat and forge, because it only says "go and read"."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any, Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool, parse_url
from redis.retry import Retry

from app.bus.address import check
from app.bus.backoff import Backoff
from app.bus.redis_listener import FAILURES, Listener
from app.service.doorbell import CLOSE_S, DoorbellUnavailable

TIMEOUT_S: Final = 0.3
"""How long Redis may take to accept a connection, or to answer, seconds."""


def pool(url: str) -> ConnectionPool:
    """Return a pool of connections that give up soon and try nothing twice.

    Raises:
        ValueError: the address cannot be read; the message does not repeat it.
    """
    check(url)
    options: dict[str, Any] = dict(parse_url(url))
    options.pop("db", None)  # channels are not a database's: no SELECT, and no right to it
    return ConnectionPool(
        **options,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        protocol=2,  # replies and messages as arrays; no maintenance messages
        driver_info=None,  # no CLIENT SETINFO: two round trips, and a right that nobody needs to grant
    )


class RedisDoorbell:
    """A doorbell that every node on the same Redis hears, this one included.

    Args:
        url: where the Redis is, with who we are there.
        namespace: whose log it is: the channel is ``haltline:<namespace>:doorbell``.

    Raises:
        ValueError: the address cannot be read; the message does not repeat it.
    """

    def __init__(self, url: str, namespace: str) -> None:
        self._channel: Final = f"haltline:{namespace}:doorbell"
        self._pool = pool(url)
        self._redis: Redis = Redis(connection_pool=self._pool)
        self._closed = threading.Event()
        self._listener = Listener(self._pool, self._channel, Backoff(random.uniform), self._closed)

    def __repr__(self) -> str:
        return f"RedisDoorbell({self._channel!r})"

    def ring(self, seq: int) -> None:
        """Publish a position. It takes up to a second where Redis is frozen: ring from a thread that may wait.

        Raises:
            DoorbellUnavailable: Redis did not take it.
        """
        if self._closed.is_set():
            raise DoorbellUnavailable("the doorbell is closed")
        try:
            self._redis.publish(self._channel, seq)
        except FAILURES as error:
            raise DoorbellUnavailable(f"Redis did not take it: {error}") from error
        finally:
            if self._closed.is_set():
                self._pool.disconnect(inuse_connections=False)

    def listen(self, heard: Callable[[int], None]) -> None:
        """Call ``heard`` with a position whenever somebody rings, once it is started."""
        self._listener.add(heard)

    def start(self) -> None:
        """Begin to listen, from a thread of its own."""
        self._listener.ensure_running()

    def close(self) -> None:
        """End the thread and the connections; what is in the middle of something ends by its time-outs."""
        self._closed.set()
        self._listener.join(CLOSE_S)
        self._pool.disconnect(inuse_connections=False)
