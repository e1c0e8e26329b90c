"""Sending: one connection to the mail server, kept open while mail flows."""

from __future__ import annotations

import smtplib
from typing import Final

from sample.mail import SENDER
from sample.ports import LOOPBACK

_TIMEOUT_S: Final = 10.0


class MailRefused(Exception):
    """The mail server did not take a mail, or went away before it said whether it did."""


class Mailer:
    """Sends by real SMTP.

    Args:
        port: the mail server's port on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._smtp: smtplib.SMTP | None = None

    def open(self) -> smtplib.SMTP:
        """Connect, unless connected: done before the check, so that nothing slow stands between check and effect.

        Raises:
            MailRefused: nobody answers.
        """
        if self._smtp is not None:
            return self._smtp
        try:
            # local_hostname is named: left out, smtplib asks the resolver, which may take seconds.
            smtp = smtplib.SMTP(LOOPBACK, self._port, local_hostname="worker.example.com", timeout=_TIMEOUT_S)
        except (OSError, smtplib.SMTPException) as error:
            raise MailRefused(f"no mail server on port {self._port}: {error}") from error
        self._smtp = smtp
        return smtp

    def send(self, address: str, mail: bytes) -> None:
        """Send one mail and wait until it is accepted.

        Raises:
            MailRefused: it was not, or nobody knows.
        """
        smtp = self.open()
        try:
            smtp.sendmail(SENDER, [address], mail)
        except (OSError, smtplib.SMTPException) as error:
            self.close()
            raise MailRefused(f"the mail server did not take a mail: {error}") from error

    def close(self) -> None:
        """Close the connection; the next mail opens another."""
        if self._smtp is not None:
            self._smtp.close()
            self._smtp = None
