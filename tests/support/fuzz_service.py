"""A service to be fuzzed: in process, on SQLite, a token of every kind, and a witness before it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from flask import Flask
from werkzeug.test import Client, TestResponse

from app.config import Config
from app.domain.access import Role
from app.domain.tokens import Token
from app.factory import create_app, node_of
from app.service.clocks import SystemClocks
from app.service.node import Node
from haltline.flips import Entry, Position, follow
from tests.support.fuzz_witness import Answer, Witness

TTL_MS: Final = 5_000
"""The longest there is: a machine that pauses must not look like a database that cannot be read."""

ENDED: Final = Token("default", "ended0000000", "0" * 43)


class Clock(SystemClocks):
    """This machine's clocks, with a wall clock that can be moved: for tokens that end.

    Attributes:
        ahead: how far the wall clock is ahead, seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0

    def wall(self) -> float:
        """Return the wall clock's time."""
        return super().wall() + self.ahead


@dataclass
class Fuzzed:
    """A running service.

    Attributes:
        app: the application.
        witness: what to ask: every reply is judged on its way.
        tokens: a text for each kind of token, good and bad ones.
    """

    app: Flask
    witness: Witness
    tokens: dict[str, str] = field(repr=False)

    @property
    def node(self) -> Node:
        """Return the node behind the application."""
        return node_of(self.app)

    @property
    def head(self) -> int:
        """Return the seq of the log's newest entry."""
        return self.node.store.head().position.seq

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Answer:
        """Send a request as it is described and nothing else."""
        # As a server hands them on: a client library would read //v1/flags as the address of a host.
        where, _, query = path.partition("?")
        raw = {"PATH_INFO": unquote_to_bytes(where).decode("latin-1"), "QUERY_STRING": query}
        response: TestResponse = Client(self.witness).open(
            "/", method=method, data=body, headers=list(headers), environ_overrides=raw
        )
        with response:
            return Answer(method, path, response.status_code, response.headers, response.get_data())

    def call(self, method: str, path: str, members: Any = None, *, who: str = "admin", **headers: str) -> Answer:
        """Send a good request; a header's name has underscores for its hyphens."""
        sent = [("Authorization", f"Bearer {self.tokens[who]}")]
        sent += [(name.replace("_", "-"), value) for name, value in headers.items()]
        body = None
        if members is not None:
            body = json.dumps(members).encode()
            sent.append(("Content-Type", "application/json"))
        return self.ask(method, path, body=body, headers=tuple(sent))

    def kill(self, target: str, **members: Any) -> Answer:
        """Kill."""
        return self.call("POST", "/v1/kills", {"target": target, "reason": "why", **members})

    def exported(self) -> list[Entry]:
        """Return the whole log, its chain verified."""
        lines = self.call("GET", "/v1/log/export").body.splitlines()
        return list(follow((json.loads(line) for line in lines), after=Position()))


@contextmanager
def fuzzed(folder: Path) -> Iterator[Fuzzed]:
    """Serve from an empty folder, its refresher running."""
    clocks = Clock()
    config = Config(database_url=f"sqlite:///{folder}/haltline.db", log_level="error", ttl_ms=TTL_MS)
    app = create_app(config, clocks=clocks)
    node = node_of(app)
    node.events.lasts_s = 0.02  # whoever draws requests at random reads each reply to its end
    try:
        node.start()
        yield Fuzzed(app, Witness(app, head=lambda: node.store.head().position.seq), tokens_of(node, clocks))
    finally:
        node.close()


def tokens_of(node: Node, clocks: Clock) -> dict[str, str]:
    """Make tokens: one of each role, one bound to a tenant, and one of each kind that opens nothing."""
    issue = node.tokens.issue
    tokens = {each.value: issue(subject=f"the-{each.value}", role=each, actor="setup").text for each in Role}
    tokens["bound"] = issue(subject="the-bound", role=Role.OPERATOR, actor="setup", tenants=("acme",)).text
    revoked = issue(subject="revoked", role=Role.ADMIN, actor="setup")
    assert node.tokens.revoke(revoked.stored.token_id, actor="setup")
    clocks.ahead = -2 * 86_400.0
    expired = issue(subject="expired", role=Role.ADMIN, actor="setup", days=1).text
    clocks.ahead = 0.0
    good = tokens["admin"]
    other = "A" if good[-60] != "A" else "B"
    flipped = Token("default", good.split("_")[2], "0" * 43).text
    return {
        **tokens,
        "revoked": revoked.text,
        "expired": expired,
        "unknown": ENDED.text,
        "wrong secret": flipped,
        "foreign": Token("elsewhere", "k3v9x0q2m7ab", "0" * 43).text,
        "wrong checksum": good[:-1] + ("a" if good[-1] != "a" else "b"),
        "other case": good.upper(),
        "truncated": good[:-1],
        "doubled": good + good,
        "changed": good[:-20] + other + good[-19:],
        "NUL": "hlt_default_\x00",
        "not ASCII": "hlt_default_k3v9x0q2m7ab_\u00e9" + "0" * 48,
        "long": "hlt_" + "a" * 3_000,
        "empty": "",
    }
