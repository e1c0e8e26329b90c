"""The mail server that the fleet sends to: real SMTP on the loopback address, in the observer's own process."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import TracebackType
from typing import Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from sample.mail import read_tags
from sample.observer import Observer
from sample.ports import LOOPBACK, free_port
from sample.troubles import Trouble

_NAME = "sink.example.com"  # named here: left out, aiosmtpd asks the resolver, which may take seconds


class _Mailbox:
    """What aiosmtpd calls with each mail."""

    def __init__(self, observer: Observer, folder: Path | None) -> None:
        self._observer = observer
        self._folder = folder
        self._number = itertools.count(1)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Accept a mail; aiosmtpd names the method."""
        content = envelope.content
        if not isinstance(content, bytes):
            return "554 5.6.0 no content"
        tags = read_tags(content)
        if self._folder is not None:
            name = f"{next(self._number):09d}.{tags.run or 'unknown'}.eml"
            (self._folder / name).write_bytes(content)
        # The last thing before the reply: from here on the mail is sent, and nobody can call it back.
        self._observer.accept(tags)
        return "250 2.0.0 accepted"


class Sink:
    """A mail server; a context manager that listens from entering to leaving.

    Args:
        observer: stamps each mail at the moment it is accepted.
        folder: where to keep each mail as a file, one mail a file; None keeps none. It must exist and be empty.

    Attributes:
        port: where it listens, on 127.0.0.1; below 32768.
    """

    def __init__(self, observer: Observer, *, folder: Path | None = None) -> None:
        self._mailbox = _Mailbox(observer, folder)
        self._controller: Controller | None = None
        self.port = 0

    def __enter__(self) -> Self:
        """Start listening.

        Raises:
            Trouble: no port could be had.
        """
        failure: OSError | None = None
        for _ in range(3):  # a port that was free may be taken a moment later
            try:
                self.port = free_port()
                controller = Controller(self._mailbox, hostname=LOOPBACK, port=self.port, server_hostname=_NAME)
                controller.start()
            except OSError as error:
                failure = error
                continue
            self._controller = controller
            return self
        raise Trouble(f"the mail server has no port to listen on: {failure}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening, and drop the connections that are open."""
        if self._controller is not None:
            self._controller.stop()
            self._controller = None
