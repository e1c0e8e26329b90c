"""Stamp keys over HTTP: in every first frame of who may lease, another set for each view, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from app.api.granting import again, asked_of, stream
from app.domain.access import Principal
from app.service.published import Published
from app.service.stamp_keys import ROTATE_S
from app.service.store import StampSecret, StoreUnavailable
from haltline.keys import StampKey, parse_keys
from tests.api.desk import Desk, members, open_desk, problem
from tests.unit.service.fakes import MemoryStore

ASKED: Final = {
    "stream": True,
    "nonce": "0123456789abcdef",
    "worker": "mailer",
    "instance": "i-1",
    "epoch": None,
    "seq": 0,
    "hash": None,
}


def keys(desk: Desk, *, who: str = "worker") -> tuple[StampKey, ...]:
    """Return the keys that a worker is given with a single frame."""
    return parse_keys(members(desk.lease(who=who))["stamp_keys"])


def first(desk: Desk, **body: Any) -> dict[str, Any]:
    """Return the first frame of a stream."""
    response = desk.lease(stream=True, **body)
    try:
        line = next(iter(response.response))
        assert isinstance(line, bytes)
        frame = json.loads(line)
    finally:
        response.close()
    assert isinstance(frame, dict)
    return frame


def test_each_view_has_keys_of_its_own(desk: Desk) -> None:
    """Who is bound to a tenant cannot seal for a view that sees more, whatever it is: the ids are alike, no key is."""
    whole, bound = keys(desk), keys(desk, who="bound_worker")
    assert whole
    assert [key.id for key in whole] == [key.id for key in bound]
    assert not {key.key for key in whole} & {key.key for key in bound}
    assert keys(desk) == whole
    assert parse_keys(first(desk, who="bound_worker")["stamp_keys"]) == bound
    assert keys(desk, who="admin") == whole  # an embedded install's admin may lease


def test_a_secret_is_no_key(desk: Desk) -> None:
    """What is stored is given to nobody."""
    stored = desk.node.store.stamp_secrets()
    assert len(stored) == 1
    given = {key.key for who in ("worker", "bound_worker") for key in keys(desk, who=who)}
    assert stored[0].secret not in given
    assert len(given) == 2


@pytest.mark.parametrize("who", ["observer", "operator", "bound_operator", "releaser", "gateway"])
def test_who_may_not_lease_is_given_none(shared: Desk, who: str) -> None:
    """No other reply has any."""
    response = shared.lease(who=who)
    problem(response, "forbidden")
    assert b"stamp_keys" not in response.get_data()


def test_no_other_route_tells_of_keys(shared: Desk) -> None:
    """Not the log, its export, the settings, the metrics, nor a problem."""
    given = members(shared.lease())["stamp_keys"]
    secret = shared.node.store.stamp_secrets()[0].secret
    paths = ("/v1/log", "/v1/log/export", "/v1/settings", "/v1/tokens", "/v1/flags", "/metrics")
    told = b"".join(shared.call("GET", path).get_data() for path in paths)
    told += shared.lease(seq=-1).get_data() + shared.lease(namespace="other").get_data()
    for hidden in (given[0]["key"], secret.hex(), given[0]["id"]):
        assert hidden.encode() not in told


def test_nothing_is_written_to_the_journal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever is asked and however it ends."""
    desk = open_desk(tmp_path)
    desk.lease()
    first(desk)
    desk.lease(hash="x")
    given = members(desk.lease())["stamp_keys"][0]["key"]
    secret = desk.node.store.stamp_secrets()[0].secret.hex()
    desk.close()
    said = "".join(capfd.readouterr())
    assert given not in said
    assert secret not in said


class Later:
    """A stream of a node, and the requests that follow it on the same connection."""

    def __init__(self, desk: Desk, who: Principal) -> None:
        self._node = desk.node
        self._asked = asked_of(dict(ASKED))
        self._reply = stream(self._node, who, self._asked, received_at_us=self._node.clocks.raw_us_ceil())
        self.first = json.loads(self._reply.first)
        self._asked = asked_of({**ASKED, **{name: self.first[name] for name in ("epoch", "seq", "hash")}})

    def follow(self) -> dict[str, Any]:
        """Return the first frame of the stream that follows."""
        received_at_us = self._node.clocks.raw_us_ceil()
        published = self._node.refresher.read_after(received_at_us)
        assert isinstance(published, Published)
        line = again(self._node, self._reply.stream, self._asked, published, received_at_us=received_at_us)
        assert line is not None
        assert line.endswith(b"}\n")
        frame = json.loads(line)
        assert isinstance(frame, dict)
        return frame

    def close(self) -> None:
        """End it."""
        self._reply.close()


@pytest.fixture
def later(desk: Desk) -> Iterator[Later]:
    """Yield the stream of a bound worker."""
    who = desk.node.tokens.verify(desk.tokens["bound_worker"])
    assert isinstance(who, Principal)
    made = Later(desk, who)
    yield made
    made.close()


def test_a_stream_that_follows_begins_with_the_keys_of_now(desk: Desk, later: Later) -> None:
    """The same bytes while nothing changed; a rotation is in the next first frame."""
    told = later.first["stamp_keys"]
    assert parse_keys(told) == keys(desk, who="bound_worker")
    assert later.follow()["stamp_keys"] == told
    newest = StampSecret("ffffffffffff", b"\x01" * 32, desk.node.clocks.wall())
    desk.node.store.add_stamp_secret(newest, after=told[0]["id"], keep=9)
    assert later.follow()["stamp_keys"] == told
    desk.node.stamp_keys.look()
    followed = later.follow()["stamp_keys"]
    assert [each["id"] for each in followed] == ["ffffffffffff", told[0]["id"]]
    assert followed[1] == told[0]
    assert members(desk.lease(who="bound_worker"))["stamp_keys"] == followed


def test_a_lease_does_not_depend_on_keys(tmp_path: Path) -> None:
    """Where the secrets cannot be read, a frame comes without the member, and with it as soon as they can."""

    class Without(MemoryStore):
        failing = True

        def stamp_secrets(self) -> Any:
            if self.failing:
                raise StoreUnavailable("no right to read it")
            return super().stamp_secrets()

    store = Without()
    desk = open_desk(tmp_path, store=store)
    assert "stamp_keys" not in members(desk.lease())
    assert "stamp_keys" not in first(desk)
    store.failing = False
    assert desk.node.stamp_keys.text(None) is None
    deadline = desk.node.clocks.monotonic() + 20
    while "stamp_keys" not in members(desk.lease()) and desk.node.clocks.monotonic() < deadline:
        pass
    assert keys(desk)
    assert "stamp_keys" in first(desk)
    desk.close()


def test_the_age_of_the_newest_key_is_told(desk: Desk) -> None:
    """So that whoever runs the service sees that keys are not rotated; -1 where none is given out."""

    def age() -> float:
        text = desk.call("GET", "/metrics", who=None).get_data(as_text=True)
        line = next(line for line in text.splitlines() if line.startswith("haltline_stamp_key_age_seconds "))
        return float(line.split()[1])

    assert age() == -1
    keys(desk)
    assert 0 <= age() < ROTATE_S
