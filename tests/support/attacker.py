"""Clients that harm: a process that floods a node, drips bodies into it, or holds streams that it does not read.

Run as ``python -m tests.support.attacker <what> <port> <count>`` with the token in the environment; ``what`` is
``flood`` (lease requests as fast as they are answered, on so many connections), ``bodies`` (so many requests whose body
never ends), ``streams`` (so many lease streams; every other one is never read) or ``strangers`` (requests as fast as
they are answered, each with another made-up token). It prints ``ready`` once all are at work, goes on until its
standard input ends, and then prints how many requests were answered (flood), how many were put off with 503
(strangers), or how many connections were opened in all.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import selectors
import socket
import sys
import threading
import time
from typing import Final

from app.domain.tokens import BASE62, ID_ALPHABET, ID_LENGTH, SECRET_LENGTH, Token
from tests.support.ports import LOOPBACK

ASKED: Final = {
    "nonce": "0123456789abcdef",
    "worker": "attacker",
    "instance": "i",
    "epoch": None,
    "seq": 0,
    "hash": None,
}


_PARTS: Final = ((ID_ALPHABET, ID_LENGTH), (BASE62, SECRET_LENGTH))


def request(*, stream: bool, padding: int = 0) -> bytes:
    """Return a lease request; with padding, its head promises so many bytes more than follow."""
    body = json.dumps({**ASKED, "epoch": None, "seq": 0, "hash": None, "stream": stream}).encode()
    head = (
        f"POST /v1/lease HTTP/1.1\r\nHost: {LOOPBACK}\r\nAuthorization: Bearer {os.environ['HALTLINE_TOKEN']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body) + padding}\r\n\r\n"
    )
    return head.encode() + body


def stranger() -> bytes:
    """Return a request with a token that is well formed, its checksum included, and made up."""
    token_id, secret = ("".join(random.choices(digits, k=length)) for digits, length in _PARTS)
    made_up = Token("default", token_id, secret)
    return f"GET /v1/flags HTTP/1.1\r\nHost: {LOOPBACK}\r\nAuthorization: Bearer {made_up.text}\r\n\r\n".encode()


class Attack:
    """So many connections to one port, kept up until the attack ends; what breaks off is opened anew."""

    def __init__(self, what: str, port: int, count: int) -> None:
        self._what = what
        self._port = port
        self._count = count
        self.opened = 0
        self.answered = 0
        self.put_off = 0
        self.over = False
        self._selector = selectors.DefaultSelector()
        self._all: list[socket.socket] = []

    def run(self) -> None:
        """Attack until it is over."""
        for _ in range(self._count):
            self._open()
        os.write(1, b"ready\n")
        dripped = time.monotonic()
        while not self.over:
            for key, _events in self._selector.select(0.05):
                if isinstance(key.fileobj, socket.socket):
                    self._read(key.fileobj)
            if self._what == "bodies" and time.monotonic() > dripped + 0.5:
                dripped = time.monotonic()
                for each in list(self._all):
                    self._send(each, b" ")
            while len(self._all) < self._count and not self.over:
                self._open()

    def _open(self) -> None:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        connection.settimeout(5)
        if self._what == "streams":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            connection.connect((LOOPBACK, self._port))
        except OSError:
            connection.close()
            time.sleep(0.01)
            return
        self.opened += 1
        self._all.append(connection)
        self._send(connection, self._request())
        connection.settimeout(0)
        if self._what != "streams" or self.opened % 2:
            self._selector.register(connection, selectors.EVENT_READ)

    def _request(self) -> bytes:
        if self._what == "strangers":
            return stranger()
        return request(stream=self._what == "streams", padding=10_000 if self._what == "bodies" else 0)

    def _read(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or (self._what == "streams" and data.startswith(b"HTTP/1.1 503")):
            self._drop(connection)  # refused under load: asked again at once, as no decent client does
        elif data.endswith(b"0\r\n\r\n"):  # a stream has ended in order
            self._send(connection, request(stream=True))
        elif self._what == "strangers":
            self.put_off += data.startswith(b"HTTP/1.1 503")
            self._send(connection, stranger())
        elif self._what == "flood" and data.endswith(b"}"):
            self.answered += 1
            self._send(connection, request(stream=False))

    def _send(self, connection: socket.socket, data: bytes) -> None:
        try:
            connection.send(data)
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(connection)
        if connection in self._all:
            self._all.remove(connection)
        connection.close()


def main() -> None:
    """Attack until standard input ends."""
    what, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    attack = Attack(what, port, count)

    def wait() -> None:
        sys.stdin.read()
        attack.over = True

    threading.Thread(target=wait, daemon=True).start()
    attack.run()
    counted = {"flood": attack.answered, "strangers": attack.put_off}.get(what, attack.opened)
    sys.stdout.write(f"{counted}\n")


if __name__ == "__main__":
    main()
