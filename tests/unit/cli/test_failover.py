"""Several addresses: a flip goes on to the next by the same id, a question to whichever answers, in one deadline."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import pytest

from haltline.cli.exchange import Answer, Ask, Body, Wire
from haltline.cli.settings import Settings
from haltline.clocks import Clocks
from tests.unit.cli.commanding import TOKEN, Answering, Fake, Ran, Stream, flag, hold, lost, problem, reply, run

A: Final = "https://a:8787"
B: Final = "https://b:8787"
C: Final = "https://c:8787"
KILL: Final = ("kill", "run", "r-42", "--reason", "it's $bad")


def unreached(_: Ask) -> Answer:
    """Be nowhere."""
    raise lost(sent=False)


def vanish(_: Ask) -> Answer:
    """Take a request, and never answer."""
    raise lost(sent=True)


def busy(_: Ask) -> Answer:
    """Be unable to write."""
    return problem(503, "store_unavailable", outcome="not_committed")


def unsure(_: Ask) -> Answer:
    """Not know what came of it."""
    return problem(503, "outcome_unknown", outcome="unknown")


def other_lane(_: Ask) -> Answer:
    """Be a worker lane."""
    return problem(404, "wrong_lane", lane="control")


def page(_: Ask) -> Answer:
    """Be no service at all."""
    return Answer(200)


def gone(_: Ask) -> Answer:
    """Be another server."""
    return Answer(404)


class Several(Fake):
    """A service at several addresses.

    Attributes:
        tried: the addresses that were asked, in order.
    """

    def __init__(self, answers: Mapping[str, Answering], **changes: float) -> None:
        super().__init__(unreached, **changes)  # type: ignore[arg-type]
        self.answers = answers
        self.streams: dict[str, Stream] = {}
        self.tried: list[str] = []
        self.shares: list[float] = []

    def connect(self, settings: Settings, _clocks: Clocks) -> Wire:
        """Return a wire to the one address of these settings."""
        (address,) = settings.addresses
        return _At(self, str(address))


@dataclass
class _At:
    several: Several
    address: str

    def send(self, ask: Ask, deadline_s: float, /) -> Answer:
        self.several.answering = self.several.answers[self.address]
        self.several.tried.append(self.address)
        self.several.shares.append(deadline_s)
        return self.several.send(ask, deadline_s)

    @contextmanager
    def stream(self, ask: Ask, deadline_s: float, idle_s: float, /) -> Iterator[Body]:
        self.several.tried.append(self.address)
        self.several.streamed = self.several.streams.get(self.address)
        with self.several.stream(ask, deadline_s, idle_s) as body:
            yield body


def ran(several: Several, *words: str) -> Ran:
    """Run ``haltline words...`` with these addresses."""
    environment = {"HALTLINE_URL": ",".join(several.answers), "HALTLINE_TOKEN": TOKEN}
    return run(several, *words, environment=environment)


def flip_ids(several: Several) -> set[str]:
    """Return the flip_id of each request."""
    return {json.loads(ask.body or b"")["flip_id"] for ask in several.asked}


@pytest.mark.parametrize("first", [unreached, vanish, busy, unsure, other_lane, page, gone])
def test_whatever_is_wrong_with_the_first_the_second_kills(first: Answering) -> None:
    """At once, without a pause, by the same flip_id; and one proof is a success whatever went before it."""
    several = Several({A: first, B: reply})
    done = ran(several, *KILL)
    assert done.code == 0, done.err
    assert several.tried == [A, B]
    assert several.slept == []
    assert len(flip_ids(several)) == 1


@pytest.mark.parametrize(("count", "tries"), [(2, 4), (3, 6)])
def test_a_hanging_address_leaves_time_for_every_other(count: int, tries: int) -> None:
    """Each has a share, and a second one; all of them end by the deadline."""
    addresses = [A, B, C][:count]
    several = Several(dict.fromkeys(addresses, vanish), takes=60)
    began = several.clock.clocks.gettime(7)
    assert ran(several, *KILL, "--timeout", "4").code == 5
    assert several.clock.clocks.gettime(7) - began <= 4.001
    assert several.tried == addresses * 2
    assert len(several.tried) == tries
    assert min(several.shares) > 0.25


def test_a_hanging_first_and_a_dead_second() -> None:
    """What hung may have killed: asked again, and again, and then it is unknown."""
    several = Several({A: vanish, B: unreached}, takes=0.2)
    done = ran(several, *KILL)
    assert done.code == 5
    assert several.tried[:4] == [A, B, A, B]
    assert len(flip_ids(several)) == 1


def test_a_doubt_is_ended_by_a_proof_alone() -> None:
    """Neither by a refusal of the next address, nor by one that could not write."""
    for second in (lambda _: problem(401, "unauthenticated"), busy, other_lane):
        several = Several({A: vanish, B: second})
        done = ran(several, *KILL)
        assert done.code == 5
        assert done.err.startswith("UNKNOWN: whether run:r-42 is killed")


def test_a_refusal_of_the_service_is_final() -> None:
    """The next address keeps the same log and the same tokens: it is not asked."""
    several = Several({A: lambda _: problem(403, "forbidden"), B: reply})
    done = ran(several, *KILL)
    assert done.code == 3
    assert several.tried == [A]
    assert A in done.err


def test_no_control_lane_says_what_to_do() -> None:
    """Each address with what it failed by; then the line for the database, and the worker lane as the last resort."""
    several = Several({A: unreached, B: unreached})
    done = ran(several, *KILL)
    assert done.code == 4
    assert several.tried[:4] == [A, B, A, B]
    lines = done.err.splitlines()
    assert lines[0] == f"NOT KILLED: run:r-42: {A}: connection refused; {B}: connection refused"
    straight = next(line for line in lines if line.startswith("  "))
    assert shlex.split(straight) == ["haltline-server", "kill", "run", "r-42", "--reason", "it's $bad"]
    assert lines.index(straight) < next(at for at, line in enumerate(lines) if "stop the worker lane" in line)
    as_json = ran(Several({A: unreached, B: unreached}), *KILL, "--json").json
    assert as_json["next"] == [straight.strip()]
    assert as_json["outcome"] == "not_done"


def test_a_control_lane_out_of_reach_and_a_worker_lane() -> None:
    """Is a kill that is not done, and not one that is refused: the control lane was never asked."""
    done = ran(Several({A: unreached, B: other_lane}), *KILL)
    assert done.code == 4
    assert "404 wrong_lane" in done.err
    assert "haltline-server kill" in done.err


def test_worker_lanes_alone() -> None:
    """Refused, with where to send it."""
    for answers in ({A: other_lane}, {A: other_lane, B: other_lane}):
        several = Several(answers)
        done = ran(several, *KILL)
        assert done.code == 3
        assert done.err.startswith("NOT KILLED: run:r-42: ")
        assert "Name the addresses of the control lanes" in done.err
        assert several.tried == [*answers]


def test_an_address_that_cannot_write_is_asked_again() -> None:
    """As long as there is time: the other one is gone, and this one may recover."""
    answers: Iterator[Answering] = iter([busy, busy, reply])

    def recovers(ask: Ask) -> Answer:
        return next(answers)(ask)

    several = Several({A: unreached, B: recovers})
    assert ran(several, *KILL).code == 0
    assert several.tried == [A, B] * 3


def test_a_revive_goes_on_to_the_next() -> None:
    """Looking at the flag does, and so does the revive; by one flip_id."""

    def answers(ask: Ask) -> Answer:
        return flag("run:r-42", hold(7, "run:r-42")) if ask.method == "GET" else reply(ask)

    several = Several({A: unreached, B: vanish, C: answers})
    done = ran(several, "revive", "run", "r-42", "--all", "--reason", "mended")
    assert done.code == 0, done.err
    assert several.tried == [A, B, C, A, B, C]


@pytest.mark.parametrize("first", [unreached, vanish, busy, other_lane, page, gone])
def test_questions_go_to_whichever_address_answers(first: Answering) -> None:
    """And stay with it."""

    def answers(ask: Ask) -> Answer:
        if ask.path == "/readyz":
            return Answer(200, {"status": "ready", "age_ms": 4, "ttl_ms": 1000})
        return Answer(200, {"flags": [], "counts": {}, "next_cursor": None, "seq": 9, "hash": "h", "epoch": "e"})

    several = Several({A: first, B: answers})
    done = ran(several, "status")
    assert done.code == 0, done.err
    assert several.tried == [A, B, B]
    assert f"service    {B}, namespace default" in done.out


def test_a_question_that_nobody_answers() -> None:
    """Each address is named; what did answer is told rather than who did not."""
    done = ran(Several({A: unreached, B: unreached}), "flags")
    assert done.code == 4
    assert done.err.startswith("no answer: connection refused; connection refused")
    done = ran(Several({A: other_lane, B: unreached}), "flags")
    assert done.code == 3
    assert "404 wrong_lane" in done.err
    assert "Name the addresses of the control lanes" in done.err


def test_hanging_questions_end_in_time() -> None:
    """Each address has a share of the time."""
    several = Several({A: vanish, B: vanish, C: vanish}, takes=60)
    assert ran(several, "flags", "--timeout", "3").code == 4
    assert several.shares == pytest.approx([1, 1, 1])


def test_an_export_goes_on_to_the_next() -> None:
    """Where the first has no head for it; a body that has begun is never continued elsewhere."""
    several = Several(dict.fromkeys((A, B, C), unreached))
    head = [("haltline-head", f"0:{'0' * 64}"), ("content-type", "application/jsonl")]
    several.streams = {B: Stream(503, [], [b""]), C: Stream(200, head, [])}
    done = ran(several, "export", "-o", "-")
    assert done.code == 0, done.err
    assert several.tried == [A, B, C]
    del several.streams[C]
    done = ran(several, "export", "-o", "-")
    assert done.code == 3


def test_the_line_to_type_again_has_every_option() -> None:
    """The addresses, and what permits them."""
    url = f"{A},http://c:1"
    environment = {"HALTLINE_TOKEN": TOKEN}
    several = Several({A: vanish, "http://c:1": unreached})
    done = run(several, *KILL, "--url", url, "--plain-http", "--flip-id", "f-1", environment=environment)
    assert done.code == 5
    again = shlex.split(done.err.splitlines()[-1])
    assert again == ["haltline", *KILL, "--flip-id", "f-1", "--url", url, "--plain-http"]
