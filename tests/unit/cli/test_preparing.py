"""Before the first request: what is said of the first admin token, above all where nobody has it."""

from __future__ import annotations

import pytest

from app.cli.preparing import FRESH_S, _first_admin
from app.config import Config
from app.service.store import FirstToken, OutcomeUnknown, StoredToken
from tests.unit.service.fakes import ManualClocks, MemoryStore

HERE = Config(database_url="sqlite://", bind="127.0.0.1:8701")
THERE = Config(database_url="sqlite://", bind="127.0.0.1:8702")
HINT = "haltline-server token create --role admin --subject admin"


class Broken(MemoryStore):
    """A store whose connection is lost while the first token is committed."""

    def add_first_token(self, token: StoredToken, *, actor: str, shown_by: str) -> FirstToken:
        before = len(self.kept)
        found = super().add_first_token(token, actor=actor, shown_by=shown_by)
        if len(self.kept) > before:
            raise OutcomeUnknown("the connection was lost")
        return found


def test_a_first_token_that_nobody_has(capsys: pytest.CaptureFixture[str]) -> None:
    """The start that lost it says how to make another, and so does the next one, at the same place."""
    store, clocks = Broken(), ManualClocks()
    with pytest.raises(OutcomeUnknown):
        _first_admin(store, HERE, clocks)
    said = capsys.readouterr()
    assert said.out == ""
    assert HINT in said.err
    for config, who in ((HERE, "an earlier start here"), (THERE, "127.0.0.1:8701. See")):
        _first_admin(store, config, clocks)
        out = capsys.readouterr().out
        assert HINT in out
        assert who in out
        assert next(iter(store.kept)) in out
        assert "hlt_" not in out


def test_later_starts_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Once the first start is some time ago, there is nothing to say about its token."""
    store, clocks = MemoryStore(), ManualClocks()
    _first_admin(store, HERE, clocks)
    assert "HALTLINE_TOKEN=hlt_" in capsys.readouterr().out
    clocks.pass_s(FRESH_S + 1)
    for config in (HERE, THERE):
        _first_admin(store, config, clocks)
        assert capsys.readouterr().out == ""
