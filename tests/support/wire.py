"""A PostgreSQL wire in test hands: it counts round trips, or stands in for a pooler that does what none should.

It reads the messages of the protocol (https://www.postgresql.org/docs/current/protocol-message-formats.html) and hands
them on in batches: what a client sends up to a Sync or a simple query, then all that the server answers to it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Final, Self

from tests.support.postgres import SUPERUSER

_SSL, _GSS = 80877103, 80877104
_SOCKET_FILE: Final = ".s.PGSQL.5432"


class Wire:
    """A listener in front of a server; a context manager.

    Attributes:
        round_trips: how many batches were handed on and answered, of all clients together.
        connections: how many clients have come so far.
        port: where it listens, on loopback.
    """

    def __init__(self, folder: Path, *, sessions: int = 1, options: bool = True, away_s: float = 0.0) -> None:
        """Listen.

        Args:
            folder: the folder of the server's socket.
            sessions: to how many sessions of the server the batches of one client go in turn: with more than one it is
                a pooler in statement mode.
            options: whether the start-up parameter ``options`` is handed on.
            away_s: how long each round trip takes besides, seconds.
        """
        self._server = str(folder / _SOCKET_FILE)
        self._sessions = sessions
        self._options = options
        self._away_s = away_s
        self.round_trips = self.connections = 0
        self._open: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, name="wire", daemon=True)
        self._thread.start()

    def url(self, database: str, *, user: str = SUPERUSER) -> str:
        """Return the address of a database behind the wire."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def __enter__(self) -> Self:
        """Return the wire."""
        return self

    def __exit__(self, *_: object) -> None:
        """End every connection."""
        for each in (self._listening, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._thread.join(5)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.append(client)
                self.connections += 1
                threading.Thread(target=self._serve, args=(client,), name="wire-client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        servers: list[socket.socket] = []
        try:
            startup = self._startup(client)
            for _ in range(self._sessions):
                servers.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                self._open.append(servers[-1])
                servers[-1].connect(self._server)
                servers[-1].sendall(startup)
            greetings = [_until_ready(server) for server in servers]
            client.sendall(greetings[0])
            turn = 0
            while batch := _batch(client):
                server = servers[turn % len(servers)]
                turn += 1
                server.sendall(batch)
                self.round_trips += 1
                time.sleep(self._away_s)
                client.sendall(_until_ready(server))
        except OSError:
            pass  # one side has gone; so does the other
        finally:
            for each in (client, *servers):
                each.close()

    def _startup(self, client: socket.socket) -> bytes:
        while True:
            (length,) = struct.unpack("!I", _exactly(client, 4))
            body = _exactly(client, length - 4)
            (code,) = struct.unpack("!I", body[:4])
            if code not in {_SSL, _GSS}:
                break
            client.sendall(b"N")
        parameters = body[4:].rstrip(b"\0").split(b"\0")
        pairs = list(zip(parameters[::2], parameters[1::2], strict=True))
        kept = b"".join(name + b"\0" + value + b"\0" for name, value in pairs if self._options or name != b"options")
        return struct.pack("!II", len(kept) + 9, code) + kept + b"\0"


def _exactly(peer: socket.socket, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        more = peer.recv(size - len(parts))
        if not more:
            raise ConnectionResetError
        parts += more
    return parts


def _message(peer: socket.socket) -> tuple[bytes, bytes]:
    head = _exactly(peer, 5)
    return head[:1], head + _exactly(peer, struct.unpack("!I", head[1:])[0] - 4)


def _batch(client: socket.socket) -> bytes:
    """Return what a client sends up to the point where it waits for an answer; nothing when it says good-bye."""
    whole = b""
    while True:
        kind, message = _message(client)
        if kind == b"X":
            return b""
        whole += message
        if kind in {b"Q", b"S"}:
            return whole


def _until_ready(server: socket.socket) -> bytes:
    whole = []  # joined once: tens of thousands of rows are a message each
    while True:
        kind, message = _message(server)
        whole.append(message)
        if kind == b"Z":
            return b"".join(whole)
