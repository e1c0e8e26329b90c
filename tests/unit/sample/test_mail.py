"""A mail says who sent it."""

from __future__ import annotations

from email import message_from_bytes

from sample.crew import CREW
from sample.mail import Tags, compose, read_tags
from sample.recipients import Recipient

ADA = Recipient("Ada Lovelace", "ada@example.com")


def test_tags_come_back() -> None:
    """What is written into the headers is read from them."""
    assert read_tags(compose(CREW[2], ADA, 7)) == Tags("w-3", "r-3", "globex", "outreach", "send_email")


def test_real_mail() -> None:
    """A mail library reads it as a mail without defects."""
    mail = message_from_bytes(compose(CREW[0], ADA, 7))
    assert mail["To"] == "Ada Lovelace <ada@example.com>"
    assert mail["Message-ID"] == "<r-1.7@campaign.example.com>"
    assert mail.defects == []


def test_tags_end_with_the_headers() -> None:
    """A line of the body is no header, and a mail of somebody else has no tags."""
    assert read_tags(b"Subject: hello\r\n\r\nX-Haltline-Run: r-1\r\n") == Tags()
