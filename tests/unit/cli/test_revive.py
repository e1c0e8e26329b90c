"""``haltline revive``: holds are named from a view that was seen; somebody else's is never released by accident."""

from __future__ import annotations

import json
from typing import Any

import pytest

from haltline.cli.exchange import Answer, Ask
from tests.unit.cli.commanding import EPOCH, Answering, Fake, flag, hold, lost, problem, reply, run

TARGET = "run:r-42"
REVIVE = ("revive", "run", "r-42", "--reason", "mended")


def service(*seqs: int, answering: Answering = reply) -> Fake:
    """Return a service that has these holds on the target."""
    holds = [hold(seq, TARGET) for seq in seqs]
    return Fake(lambda ask: flag(TARGET, *holds) if ask.method == "GET" else answering(ask))


def sent(fake: Fake) -> list[int]:
    """Return the holds that the revive named."""
    found = json.loads(fake.asked[-1].body or b"")["holds"]
    assert isinstance(found, list)
    return found


def test_a_single_hold_must_be_named_too() -> None:
    """One hold and no option: it may be somebody else's. It is listed, nothing is sent, 2."""
    fake = service(3)
    ran = run(fake, *REVIVE)
    assert ran.code == 2
    assert "has 1 hold: name those to release" in ran.err
    assert "hold 3 by ada" in ran.err
    assert len(fake.asked) == 1


def test_single_hold() -> None:
    """The hold that is named is shown and released, from the view that was seen."""
    fake = service(3)
    ran = run(fake, *REVIVE, "--hold", "3")
    assert ran.code == 0, ran.err
    assert [(ask.method, ask.path) for ask in fake.asked] == [("GET", "/v1/flags/run/r-42"), ("POST", "/v1/revives")]
    assert fake.asked[1].headers == (("If-Match", f'"{EPOCH}.7"'),)
    assert sent(fake) == [3]
    assert "stop it" in ran.out
    assert "run:r-42 is free. Nothing was started" in ran.out


def test_global_path() -> None:
    """The flag of global has a path of its own."""
    fake = Fake(lambda ask: flag("global", hold(3, "global")) if ask.method == "GET" else reply(ask))
    assert run(fake, "revive", "global", "--all", "--reason", "all clear").code == 0
    assert fake.asked[0].path == "/v1/flags/global"


def test_several_holds_must_be_named() -> None:
    """Several holds and no option: they are listed, nothing is sent, 2."""
    fake = service(3, 5)
    ran = run(fake, *REVIVE)
    assert ran.code == 2
    assert "hold 3 by ada" in ran.err
    assert "hold 5 by ada" in ran.err
    assert len(fake.asked) == 1


def test_several_holds_json() -> None:
    """The list of holds is in the JSON object as well."""
    ran = run(service(3, 5), *REVIVE, "--json")
    assert ran.code == 2
    assert [each["seq"] for each in ran.json["holds"]] == [3, 5]
    assert ran.json["ok"] is False


@pytest.mark.parametrize(
    ("options", "released"),
    [(("--hold", "5"), [5]), (("--hold", "5", "--hold", "3"), [3, 5]), (("--all",), [3, 5, 8])],
)
def test_named_holds(options: tuple[str, ...], released: list[int]) -> None:
    """--hold names one each, --all every one that was seen."""
    fake = service(3, 5, 8)
    assert run(fake, *REVIVE, *options).code == 0
    assert sent(fake) == released


def test_all_and_hold_exclude_each_other() -> None:
    """--all beside --hold ends with 2."""
    assert run(service(3), *REVIVE, "--all", "--hold", "3").code == 2


def test_unknown_hold() -> None:
    """A hold that is not there ends with 2, and nothing is sent."""
    fake = service(3)
    ran = run(fake, *REVIVE, "--hold", "4")
    assert ran.code == 2
    assert "no such hold on run:r-42: 4" in ran.err
    assert len(fake.asked) == 1


def test_not_killed() -> None:
    """A target that is not killed ends with 2: there is nothing to release."""
    ran = run(service(), *REVIVE)
    assert ran.code == 2
    assert "is not killed" in ran.err


def test_still_killed() -> None:
    """What holds the target still is said."""
    left = [hold(5, TARGET, reason="another reason")]
    ran = run(service(3, 5, answering=lambda ask: reply(ask, holds=left)), *REVIVE, "--hold", "3")
    assert ran.code == 0
    assert "STILL KILLED by 1 more" in ran.out
    assert "another reason" in ran.out


def test_stale_view() -> None:
    """A target flipped in between: nothing is released, what changed is told, 3."""
    views = iter([flag(TARGET, hold(3, TARGET)), flag(TARGET, hold(9, TARGET, reason="newer"), version=9)])
    fake = Fake(lambda ask: next(views) if ask.method == "GET" else problem(412, "stale_view"))
    ran = run(fake, *REVIVE, "--all")
    assert ran.code == 3
    assert "NOT REVIVED" in ran.err
    assert "released meanwhile: 3" in ran.err
    assert "hold 9 by ada" in ran.err
    assert "newer" in ran.err


def test_stale_view_after_a_lost_reply_is_known() -> None:
    """A 412 after a lost reply says that neither attempt was written: 3."""
    first = iter([True])

    def answering(_: Ask) -> Answer:
        if next(first, False):
            raise lost(sent=True)
        return problem(412, "stale_view")

    assert run(service(3, answering=answering), *REVIVE, "--all").code == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"released": [4]},
        {"released": None},
        {"released": [3, 4]},
        {"holds": [hold(3, TARGET)]},
        {"flip_id": "f-x"},
        {"seq": "7"},
        {"seq": True},
        {"seq": 0},
    ],
)
def test_lies_are_no_success(changes: dict[str, Any]) -> None:
    """A reply that does not prove that exactly those holds were released ends with 5."""
    ran = run(service(3, answering=lambda ask: reply(ask, **changes)), *REVIVE, "--all")
    assert ran.code == 5
    assert "free" not in ran.out
    assert "--hold 3" in ran.err


def test_repeated_revive_is_sent_though_the_hold_is_gone() -> None:
    """The line printed for an unknown outcome works after all: the service knows the flip_id."""
    fake = service(answering=lambda ask: reply(ask, status=200))
    ran = run(fake, *REVIVE, "--hold", "3", "--flip-id", "f-1")
    assert ran.code == 0
    assert "written by an earlier attempt" in ran.out


def test_flag_of_another_target() -> None:
    """A flag of another target is no view: 3, and nothing is sent."""
    fake = Fake(lambda _: flag("run:r-43", hold(3, "run:r-43")))
    assert run(fake, *REVIVE).code == 3
    assert len(fake.asked) == 1


def test_unreachable() -> None:
    """Without a connection nothing was done: 4."""

    def refuse(_: Ask) -> Answer:
        raise lost(sent=False)

    assert run(Fake(refuse), *REVIVE).code == 4
