"""``haltline kill``: a reply is a success only if it proves one, and every ending has its own exit code."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable

import pytest

from haltline.cli.exchange import Answer, Ask
from tests.unit.cli.commanding import EPOCH, TOKEN, URL, Fake, hold, lost, problem, reply, run

KILL = ("kill", "run", "r-42", "--reason", "stop it")


def flip_ids(fake: Fake) -> list[str]:
    """Return the flip_id of each request."""
    return [json.loads(ask.body or b"")["flip_id"] for ask in fake.asked]


@pytest.mark.parametrize(
    ("words", "target"),
    [
        (("run", "r-42"), "run:r-42"),
        (("run:r-42",), "run:r-42"),
        (("run", "a:b"), "run:a:b"),
        (("global",), "global"),
        (("capability", "send_email"), "capability:send_email"),
    ],
)
def test_targets(words: tuple[str, ...], target: str) -> None:
    """SCOPE ID, SCOPE:ID and global name a target."""
    fake = Fake(reply)
    ran = run(fake, "kill", *words, "--reason", "why")
    assert ran.code == 0, ran.err
    assert fake.asked[0].path == "/v1/kills"
    assert json.loads(fake.asked[0].body or b"")["target"] == target
    assert f"killed {target} at log position 7" in ran.out


@pytest.mark.parametrize("words", [("run",), ("planet", "x"), ("run", "a b"), ("global", "x"), ("capability", "Mail")])
def test_bad_targets_are_usage(words: tuple[str, ...]) -> None:
    """A target outside the grammar ends with 2, and nothing is sent."""
    fake = Fake(reply)
    assert run(fake, "kill", *words, "--reason", "why").code == 2
    assert fake.asked == []


def test_reason_is_required() -> None:
    """A kill without a reason ends with 2, and nothing is sent."""
    fake = Fake(reply)
    assert run(fake, "kill", "run", "r-42").code == 2
    assert fake.asked == []


def test_flip_id_is_fresh() -> None:
    """Each kill has a flip_id of its own, made before the first attempt."""
    fake = Fake(reply)
    run(fake, *KILL)
    run(fake, *KILL)
    first, second = flip_ids(fake)
    assert first != second
    assert first.startswith("f-")


def test_json() -> None:
    """--json prints one object: the service's reply and how it ended."""
    ran = run(Fake(reply), *KILL, "--flip-id", "f-1", "--json")
    assert ran.code == 0
    assert ran.json["outcome"] == "done"
    assert (ran.json["seq"], ran.json["flip_id"], ran.json["target"]) == (7, "f-1", "run:r-42")
    assert ran.json["effective_in_ms"] == 1000
    assert ran.json["ok"] is True
    assert ran.json["new"] is True


def test_json_before_the_command() -> None:
    """The common options may stand before the command as well."""
    assert run(Fake(reply), "--json", *KILL).json["seq"] == 7


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(lambda ask: reply(ask, flip_id="f-other"), id="other flip_id"),
        pytest.param(lambda ask: reply(ask, flip_id=None), id="no flip_id"),
        pytest.param(lambda ask: reply(ask, target="run:r-43"), id="other target"),
        pytest.param(lambda ask: reply(ask, seq=None), id="no seq"),
        pytest.param(lambda ask: reply(ask, seq="7"), id="seq as text"),
        pytest.param(lambda ask: reply(ask, seq=True), id="seq as boolean"),
        pytest.param(lambda ask: reply(ask, seq=0), id="seq 0"),
        pytest.param(lambda ask: reply(ask, holds=None), id="no holds"),
        pytest.param(lambda ask: reply(ask, holds=[]), id="new, but no hold of its own"),
        pytest.param(lambda ask: reply(ask, holds=["7"]), id="holds of another shape"),
        pytest.param(lambda ask: reply(ask, effective_in_ms=None), id="no effective_in_ms"),
        pytest.param(lambda ask: reply(ask, effective_in_ms=-1), id="effective in the past"),
        pytest.param(lambda ask: reply(ask, hash="x"), id="no hash"),
        pytest.param(lambda ask: reply(ask, epoch=None), id="no epoch"),
        pytest.param(lambda ask: reply(ask, committed_at=None), id="no committed_at"),
        pytest.param(lambda _: Answer(200, None), id="200 HTML"),
        pytest.param(lambda _: Answer(200, {}), id="200 empty object"),
        pytest.param(lambda _: Answer(301, None, {"location": "http://elsewhere/"}), id="301"),
        pytest.param(lambda ask: Answer(302, reply(ask).members), id="302 with a perfect body"),
        pytest.param(lambda ask: Answer(202, reply(ask).members), id="202 with a perfect body"),
        pytest.param(lambda ask: Answer(206, reply(ask).members), id="206 with a perfect body"),
    ],
)
def test_lies_are_no_success(lie: Callable[[Ask], Answer]) -> None:
    """An answer that does not prove the kill ends with 5, at once, and says that it is not known."""
    fake = Fake(lie)
    ran = run(fake, *KILL)
    assert ran.code == 5
    assert "killed" not in ran.out
    assert ran.err.startswith("UNKNOWN: whether run:r-42 is killed")
    assert len(fake.asked) == 1


def test_no_connection() -> None:
    """Without a connection nothing was done: 4 after two seconds of trying, and what to do."""

    def refuse(_: Ask) -> Answer:
        raise lost(sent=False)

    fake = Fake(refuse)
    ran = run(fake, *KILL)
    assert ran.code == 4
    assert ran.err.startswith("NOT KILLED: run:r-42: connection refused\nNothing was done.")
    assert len(set(flip_ids(fake))) == 1


def test_a_service_that_is_being_started_again() -> None:
    """A lane that refuses connections for a moment is asked until it is back: one kill, one flip_id."""
    refused = iter([True, True, True])

    def restarting(ask: Ask) -> Answer:
        if next(refused, False):
            raise lost(sent=False)
        return reply(ask)

    fake = Fake(restarting)
    assert run(fake, *KILL).code == 0
    assert len(fake.asked) == 4


def test_lost_reply_is_asked_for_again() -> None:
    """After a lost reply the same kill, with the same flip_id, is sent until its outcome is known."""
    losses = iter([True, True, False])

    def answering(ask: Ask) -> Answer:
        if next(losses):
            raise lost(sent=True)
        return reply(ask, status=200)

    fake = Fake(answering)
    ran = run(fake, *KILL)
    assert ran.code == 0
    assert len(set(flip_ids(fake))) == 1
    assert len(fake.asked) == 3
    assert "written by an earlier attempt" in ran.out


def test_unknown_says_what_to_type() -> None:
    """When the time is up without an answer the line to type again is printed, the flip_id in it: 5."""

    def vanish(_: Ask) -> Answer:
        raise lost(sent=True)

    fake = Fake(vanish)
    ran = run(fake, "kill", "run", "r-42", "--reason", "it's $bad", "--url", URL, "--timeout", "3")
    assert ran.code == 5
    again = ran.err.splitlines()[-1].strip()
    assert shlex.split(again) == [
        *("haltline", "kill", "run", "r-42", "--reason", "it's $bad"),
        *("--flip-id", flip_ids(fake)[0], "--url", URL),
    ]
    assert sum(fake.slept) + len(fake.asked) * fake.takes <= 3.02


def test_hanging_service_leaves_time_for_another_try() -> None:
    """A first attempt that hangs takes half of the time; the second may use the rest."""

    def hang(_: Ask) -> Answer:
        raise lost(sent=True)

    fake = Fake(hang, takes=60)
    assert run(fake, *KILL).code == 5
    assert len(fake.asked) == 2


def test_connection_lost_after_a_lost_reply_is_still_unknown() -> None:
    """Once an attempt may have arrived, a refused connection proves nothing: 5, not 4."""
    first = iter([True])

    def answering(_: Ask) -> Answer:
        raise lost(sent=next(first, False))

    assert run(Fake(answering), *KILL).code == 5


def test_refusal_after_a_lost_reply_is_still_unknown() -> None:
    """Once an attempt may have arrived, a refusal of the next one says nothing of it: 5, not 3."""
    first = iter([True])

    def answering(_: Ask) -> Answer:
        if next(first, False):
            raise lost(sent=True)
        return problem(401, "unauthenticated")

    ran = run(Fake(answering), *KILL)
    assert ran.code == 5
    assert "401 unauthenticated" in ran.err


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 422])
def test_refused(status: int) -> None:
    """A problem of the service ends with 3, and is printed."""
    fake = Fake(lambda _: problem(status, "some_code", errors={"reason": ["too long"]}))
    ran = run(fake, *KILL)
    assert ran.code == 3
    assert f"NOT KILLED: run:r-42: {status} some_code: No. Do something else. reason: too long" in ran.err
    assert len(fake.asked) == 1


def test_refused_json() -> None:
    """--json prints one object for a refusal too, with the problem in it."""
    ran = run(Fake(lambda _: problem(403, "forbidden")), *KILL, "--json")
    assert ran.code == 3
    assert ran.json["outcome"] == "refused"
    assert ran.json["exit"] == 3
    assert ran.json["problem"]["code"] == "forbidden"


def test_not_committed() -> None:
    """A service that could not write is asked again, and then nothing was done: 4."""
    fake = Fake(lambda _: problem(503, "store_unavailable", outcome="not_committed"))
    ran = run(fake, *KILL)
    assert ran.code == 4
    assert len(fake.asked) > 2


@pytest.mark.parametrize(
    "answer", [problem(503, "outcome_unknown", outcome="unknown"), Answer(502), Answer(504), Answer(500)]
)
def test_server_failures_are_unknown(answer: Answer) -> None:
    """Any other failure of a server may have been written: asked again, then 5."""
    fake = Fake(lambda _: answer)
    assert run(fake, *KILL).code == 5
    assert len(fake.asked) > 2


def test_released_since() -> None:
    """A repeated kill whose hold was released since is not a killed target: 1."""
    ran = run(Fake(lambda ask: reply(ask, status=200, holds=[])), *KILL, "--flip-id", "f-1")
    assert ran.code == 1
    assert "it is not killed now" in ran.err
    assert ran.out == ""


def test_other_holds_are_shown() -> None:
    """Every other hold on the target is listed."""
    holds = [hold(3, "run:r-42", reason="before"), hold(7, "run:r-42")]
    ran = run(Fake(lambda ask: reply(ask, holds=holds)), *KILL)
    assert "holds on it: 2" in ran.out
    assert "3 by ada" in ran.out


def test_no_terminal_does_not_wait() -> None:
    """In a pipe the figure is printed and nobody waits."""
    fake = Fake(reply)
    ran = run(fake, *KILL)
    assert "effective in 1000 ms" in ran.out
    assert fake.slept == []


def test_waits_from_the_arrival_of_the_reply() -> None:
    """--wait waits effective_in_ms from when the reply was here, and says that it is effective."""
    fake = Fake(reply, takes=2.0)
    ran = run(fake, *KILL, "--wait")
    assert sum(fake.slept) == pytest.approx(1.0)
    assert ran.out.endswith("effective: every lease granted before this kill has ended\n")


def test_interrupted_countdown_is_a_done_kill() -> None:
    """Ctrl-C while waiting ends with 0: the kill is done, and that is said."""

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    ran = run(Fake(reply), *KILL, "--wait", sleep=interrupt)
    assert ran.code == 0
    assert "the kill is done" in ran.out


def test_interrupted_exchange_is_unknown() -> None:
    """Ctrl-C before the reply ends with 5: nobody knows."""

    def interrupt(_: Ask) -> Answer:
        raise KeyboardInterrupt

    ran = run(Fake(interrupt), *KILL)
    assert ran.code == 5
    assert "--flip-id" in ran.err


def test_hostile_answers_are_inert() -> None:
    """Control characters of an answer reach neither stream."""
    evil = "\x1b]0;owned\x07\u202egnp.exe\n\r\x9b2J"
    holds = [hold(3, "run:r-42", reason=evil, actor=evil), hold(7, "run:r-42")]
    shown = run(Fake(lambda ask: reply(ask, holds=holds)), *KILL).out
    refused = run(Fake(lambda _: problem(403, evil, title=evil, detail=evil)), *KILL).err
    moved = run(Fake(lambda _: Answer(301, None, {"location": evil})), *KILL).err
    for text in (shown, refused, moved):
        assert "owned" in text
        assert not set("\x1b\x07\x9b\r\u202e") & set(text)


def test_token_is_never_shown() -> None:
    """The token is in no output, whatever happens, and cannot be an argument."""
    outputs = [
        run(Fake(reply), *KILL),
        run(Fake(reply), *KILL, "--json"),
        run(Fake(lambda _: problem(401, "unauthenticated")), *KILL),
        run(Fake(reply), *KILL, environment={"HALTLINE_URL": URL, "HALTLINE_TOKEN": f"{TOKEN}!"}),
        run(Fake(reply), *KILL, "--token", TOKEN),
    ]
    assert [ran.code for ran in outputs] == [0, 0, 3, 2, 2]
    assert all("S3cr3t" not in ran.out + ran.err for ran in outputs)


def test_reason_that_is_not_utf8() -> None:
    """An argument that is not UTF-8 ends with 2, and nothing is sent."""
    fake = Fake(reply)
    assert run(fake, "kill", "run", "r-42", "--reason", "\udcff").code == 2
    assert fake.asked == []


def test_etag_epoch_is_told() -> None:
    """The JSON reply says in which log the kill is."""
    assert run(Fake(reply), *KILL, "--json").json["epoch"] == EPOCH


def test_options_are_asked_for_as_they_are_given() -> None:
    """Each option is sent if it was given, and left to the service if not; what the hold says is shown."""
    fake = Fake(reply)
    ran = run(fake, *KILL, "--in-flight", "finish", "--queued", "drain")
    assert ran.code == 0, ran.err
    assert "in flight: finish; queued: drain\n" in ran.out
    assert "in flight: abort; queued: discard\n" in run(fake, *KILL).out
    bodies = [json.loads(ask.body or b"") for ask in fake.asked]
    assert [body.get("in_flight") for body in bodies] == ["finish", None]
    assert [body.get("queued") for body in bodies] == ["drain", None]


@pytest.mark.parametrize("option", [("--in-flight", "stop"), ("--queued", "keep"), ("--in-flight", "drain")])
def test_an_option_of_another_word_is_usage(option: tuple[str, str]) -> None:
    """Nothing is sent."""
    fake = Fake(reply)
    assert run(fake, *KILL, *option).code == 2
    assert fake.asked == []


@pytest.mark.parametrize("option", [("--in-flight", "finish"), ("--queued", "drain")])
def test_a_hold_of_another_policy_is_no_success(option: tuple[str, str]) -> None:
    """Whoever asked that calls be left to finish is not told that it was done where they are aborted: 5."""
    plain = hold(7, "run:r-42")
    ran = run(Fake(lambda ask: reply(ask, holds=[plain])), *KILL, *option)
    assert ran.code == 5
    assert f"does not say {option[0][2:].replace('-', '_')} {option[1]}" in ran.err


def test_lines_to_type_keep_the_options() -> None:
    """The line that repeats a kill, and the one that kills on the database, ask for the same."""
    options = ("--in-flight", "finish", "--queued", "drain")

    def losing(*, sent: bool) -> Callable[[Ask], Answer]:
        def lose(_: Ask) -> Answer:
            raise lost(sent=sent)

        return lose

    unknown = run(Fake(losing(sent=True)), *KILL, *options, "--flip-id", "f-1")
    again = shlex.split(unknown.err.splitlines()[-1].strip())
    assert again == ["haltline", "kill", "run", "r-42", *options, "--reason", "stop it", "--flip-id", "f-1"]
    undone = run(Fake(losing(sent=False)), *KILL, *options)
    straight = next(line.strip() for line in undone.err.splitlines() if "haltline-server" in line)
    assert shlex.split(straight) == ["haltline-server", "kill", "run", "r-42", *options, "--reason", "stop it"]
