"""The campaign asks before it reads and before it sends, and the mail server sees what was let through."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from haltline import Killed, Unverified
from haltline.testing import fake_switch, killed
from sample.campaign import Campaign
from sample.crew import CREW
from sample.mailer import Mailer, MailRefused
from sample.observer import Observer
from sample.ports import free_port
from sample.recipients import Recipient
from sample.sink import Sink
from sample.watch import Watch

W1 = CREW[0]


def everybody() -> Iterator[Recipient]:
    """Yield recipients that differ."""
    for number in range(100):
        yield Recipient(f"Nobody {number}", f"nobody.{number}@example.com")


@pytest.fixture
def observer() -> Observer:
    """Return the observer that the mail server tells."""
    return Observer(Watch())


@pytest.fixture
def campaign(observer: Observer) -> Iterator[Campaign]:
    """Yield a campaign that sends by real SMTP."""
    with Sink(observer) as sink:
        mailer = Mailer(sink.port)
        yield Campaign(W1, everybody(), mailer)
        mailer.close()


def test_sends(campaign: Campaign, observer: Observer) -> None:
    """Each step reads one recipient and has one mail accepted, tagged with who sent it."""
    with fake_switch() as switch, switch.run(W1.run, tenant=W1.tenant, feature=W1.feature) as run:
        assert [campaign.step(run) for _ in range(3)] == ["", "", ""]
    assert (campaign.read, campaign.sent, observer.count("r-1")) == (3, 3, 3)
    assert observer.last is not None
    assert observer.last.tags.worker == "w-1"


def test_frozen_sending_reads_on(campaign: Campaign, observer: Observer) -> None:
    """While sending is frozen reading goes on, what could not be sent is counted, and no mail leaves."""
    with fake_switch() as switch, switch.run(W1.run) as run:
        with killed("capability:send_email"):
            assert campaign.step(run) == "send_email is frozen by an operator"
            assert campaign.step(run) != ""
        assert (campaign.read, campaign.unsent, observer.count("r-1")) == (2, 2, 0)
        assert campaign.step(run) == ""
    assert (campaign.sent, observer.count("r-1")) == (1, 1)


def test_frozen_reading(campaign: Campaign, observer: Observer) -> None:
    """Without leave to read nobody is read, and nobody written to."""
    with fake_switch() as switch, switch.run(W1.run) as run, killed("capability:read_contacts"):
        assert campaign.step(run) == "read_contacts is frozen by an operator"
    assert (campaign.read, campaign.unsent, observer.count("r-1")) == (0, 0, 0)


@pytest.mark.parametrize("target", ["run:r-1", "tenant:acme", "feature:outreach", "global"])
def test_killed(campaign: Campaign, observer: Observer, target: str) -> None:
    """A kill on the run's path stops it before the next mail."""
    with fake_switch() as switch, switch.run(W1.run, tenant=W1.tenant, feature=W1.feature) as run:
        with killed(target), pytest.raises(Killed):
            campaign.step(run)
        with pytest.raises(Killed):
            campaign.step(run)
    assert observer.count("r-1") == 0


def test_nobody_is_left_out_by_a_halt(campaign: Campaign, observer: Observer) -> None:
    """Who was next when the lease lapsed is still next when it is fresh."""
    with fake_switch() as switch, switch.run(W1.run) as run:
        campaign.step(run)
        switch.service.down()
        switch.clock.advance(5)
        with pytest.raises(Unverified):
            campaign.step(run)
        switch.service.up()
        run.ensure()
        assert campaign.step(run) == ""
    assert (campaign.read, campaign.sent) == (2, 2)


def test_mail_server_gone() -> None:
    """Where nobody takes mail, the step says so, and the recipient stays next."""
    campaign = Campaign(W1, everybody(), Mailer(free_port()))
    with fake_switch() as switch, switch.run(W1.run) as run:
        assert "no mail server" in campaign.step(run)
        campaign.step(run)
    assert (campaign.read, campaign.sent, campaign.failed) == (1, 0, 2)


def test_kept_mail(tmp_path: Path, observer: Observer) -> None:
    """A mail server with a folder keeps each accepted mail as it came."""
    with Sink(observer, folder=tmp_path) as sink:
        mailer = Mailer(sink.port)
        mailer.send("ada@example.com", b"X-Haltline-Run: r-1\r\n\r\nhello\r\n")
        mailer.close()
    (kept,) = tmp_path.iterdir()
    assert kept.name == "000000001.r-1.eml"
    assert kept.read_bytes().endswith(b"hello\r\n")


def test_mailer_says_what_it_met() -> None:
    """A mail that nobody takes is an error, never silence."""
    with pytest.raises(MailRefused, match="no mail server on port"):
        Mailer(free_port()).send("ada@example.com", b"\r\n")
