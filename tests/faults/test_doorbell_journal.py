"""What a node says about its Redis: a change once, the reason, and never the password."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import pytest
import structlog
from structlog.testing import capture_logs

from app.bus.redis import RedisDoorbell
from app.service.doorbell import BackgroundBell, DoorbellUnavailable
from tests.support.ear import Ear
from tests.support.valkey import Valkey

SECRET: Final = "s3cr3t-p4ssw0rd"


@pytest.fixture
def journal() -> Iterator[list[Any]]:
    """Yield what is logged, everything let through, whatever tests before configured."""
    configured, configuration = structlog.is_configured(), structlog.get_config()
    structlog.reset_defaults()
    with capture_logs() as captured:
        yield captured
    if configured:
        structlog.configure(**configuration)


def wait_for(journal: list[Any], count: int) -> bool:
    """Wait until so many things were logged; return whether they were."""
    until = time.monotonic() + 10
    while len(journal) < count and time.monotonic() < until:
        time.sleep(0.01)
    return len(journal) >= count


def test_a_loss_is_told_once(journal: list[Any], valkey: Valkey) -> None:
    """However long Redis is away, the journal says once that the node is deaf, and once that it hears again."""
    bell = RedisDoorbell(valkey.url, "default")
    bell.start()
    time.sleep(0.2)  # connected or not: losing it is told all the same
    valkey.kill()
    assert wait_for(journal, 1)
    time.sleep(1.0)  # several attempts
    valkey.start()
    assert wait_for(journal, 2)
    bell.close()
    assert [each["event"] for each in journal] == ["doorbell_deaf", "doorbell_heard_again"]


@pytest.mark.parametrize(
    ("user", "password", "reason"),
    [("haltline", SECRET, "invalid username-password"), ("", SECRET, "invalid username-password")],
)
def test_a_wrong_password_is_told_without_it(journal: list[Any], user: str, password: str, reason: str) -> None:
    """A Redis that refuses who we are: the reason is told once by ringing and once by hearing, never the password."""
    with Valkey(user="haltline", password="another") as valkey:
        url = f"redis://{user}:{password}@127.0.0.1:{valkey.port}/0"
        bell = RedisDoorbell(url, "default")
        background = BackgroundBell(bell)
        background.start()
        background.ring(1)
        assert wait_for(journal, 2)
        with pytest.raises(DoorbellUnavailable, match=reason) as refused:
            bell.ring(2)
        background.close()
    assert {each["event"] for each in journal} == {"doorbell_deaf", "doorbell_silent"}
    assert all(reason in each["detail"] for each in journal)
    assert SECRET not in f"{journal} {bell!r} {background!r} {refused.value!r} {refused.value.__cause__!r}"


def test_no_right_to_the_channel_is_told(journal: list[Any]) -> None:
    """A user whom the channel is forbidden is told so, by ringing and by listening."""
    with Valkey(user="haltline", channels="haltline:staging:*") as valkey:
        bell = BackgroundBell(RedisDoorbell(valkey.url, "default"))
        bell.start()
        bell.ring(1)
        assert wait_for(journal, 2)
        bell.close()
        allowed = RedisDoorbell(valkey.url, "staging")
        ear = Ear()
        allowed.listen(ear)
        allowed.start()
        assert ear.hears(0, within_s=10)
        allowed.close()
    assert all("No permissions to access a channel" in each["detail"] for each in journal)


def test_something_else_than_a_redis_is_survived(journal: list[Any]) -> None:
    """An address at which nobody, or nobody who speaks Redis, answers: told once, tried again, closed at once."""
    bell = RedisDoorbell("redis://a..b.invalid:1/0", "default")
    bell.start()
    assert wait_for(journal, 1)
    with pytest.raises(DoorbellUnavailable):
        bell.ring(1)
    bell.close()
    assert [each["event"] for each in journal] == ["doorbell_deaf"]
