"""The campaign: read a recipient, send a mail, and ask before each of the two."""

from __future__ import annotations

from collections.abc import Iterator

from haltline import CapabilityFrozen, Run
from sample.crew import READ, SEND, Assignment
from sample.mail import compose
from sample.mailer import Mailer, MailRefused
from sample.recipients import Recipient


class Campaign:
    """One worker's campaign: its place in the list of recipients, and what it has done. It outlives its runs.

    Args:
        assignment: who sends, and on whose behalf.
        recipients: whom to write to.
        mailer: how.

    Attributes:
        read: recipients read.
        sent: mails that the mail server took.
        unsent: mails left unsent because sending was frozen.
        failed: mails that the mail server did not take.
    """

    def __init__(self, assignment: Assignment, recipients: Iterator[Recipient], mailer: Mailer) -> None:
        self._assignment = assignment
        self._recipients = recipients
        self._mailer = mailer
        self._next: Recipient | None = None
        self.read = self.sent = self.unsent = self.failed = 0

    def step(self, run: Run) -> str:
        """Read one recipient and send one mail, as far as that is allowed.

        Each recipient is written to at most once: one whose mail is frozen, or whose mail's fate is not known, is left
        out; one that a Halt came before stays next.

        Args:
            run: the armed run that is asked.

        Returns:
            an empty text; or in one line why no mail was sent.

        Raises:
            Killed: the run is stopped.
            Unverified: nothing proves that it may go on.
        """
        try:
            if self._next is None:
                run.check(READ)
                self._next = next(self._recipients)
                self.read += 1
            self._mailer.open()
            run.check(SEND)
            recipient, self._next = self._next, None
            self._mailer.send(recipient.address, compose(self._assignment, recipient, self.sent + 1))
            self.sent += 1
        except CapabilityFrozen as frozen:
            if frozen.capability == SEND:
                self._next = None
                self.unsent += 1
            return f"{frozen.capability} is frozen by an operator"
        except MailRefused as refused:
            self.failed += 1
            return str(refused)
        return ""
