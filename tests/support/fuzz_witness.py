"""A witness of every request: what no reply may ever be, and what may have been written by it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from werkzeug.datastructures import Headers
from werkzeug.test import run_wsgi_app
from werkzeug.wsgi import ClosingIterator

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]

TOKEN: Final = re.compile(r"hlt_[a-z0-9-]{1,32}_[a-z0-9]{12}_[0-9A-Za-z]{49}")
# In two pieces: Hypothesis draws from the texts that stand in our code, and would send them as reasons.
INTERNALS: Final = tuple(
    "".join(pieces)
    for pieces in (("Traceback (", "most recent"), ('File "', "/"), ("sqlal", "chemy"), ("werk", "zeug"))
)
"""What only a leaking fault would say."""

WRITERS: Final = frozenset({"/v1/kills", "/v1/revives", "/v1/tokens"})


@dataclass(frozen=True, slots=True)
class Answer:
    """One request and how it was answered.

    Attributes:
        method: as it was sent.
        path: without the query, as the service saw it.
        status: the HTTP status.
        headers: of the reply.
        body: of the reply.
    """

    method: str
    path: str
    status: int
    headers: Headers
    body: bytes

    @property
    def members(self) -> dict[str, Any]:
        """Return the members of a JSON body; nothing of any other."""
        try:
            loaded = json.loads(self.body)
        except ValueError:
            return {}
        return loaded if isinstance(loaded, dict) else {}


def complaints(answer: Answer) -> list[str]:
    """Return every way in which a reply is not what any reply of the service must be."""
    found = []
    if answer.status >= 500:
        found.append(f"status {answer.status}")
    if 300 <= answer.status < 400 and answer.status != 304:
        found.append(f"a redirect to {answer.headers.get('Location')}")
    if answer.headers.get("Cache-Control") != "no-store":
        found.append("a cache may keep it")
    if answer.headers.get("X-Content-Type-Options") != "nosniff":
        found.append("a browser may guess what it is")
    text = answer.body.decode("utf-8", "replace")
    told = text + "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
    found += [f"it tells {each!r}" for each in INTERNALS if each in told]
    made = answer.method == "POST" and answer.path.rstrip("/") == "/v1/tokens" and answer.status == 201
    if len(TOKEN.findall(told)) != (1 if made else 0):
        found.append("it shows a token" if not made else "it does not show the new token once")
    if answer.status >= 400:
        found += _problem_complaints(answer)
    return found


def _problem_complaints(answer: Answer) -> list[str]:
    found = []
    if answer.headers.get("Content-Type") != "application/problem+json":
        found.append(f"an error of type {answer.headers.get('Content-Type')}")
    if answer.status == 401 and not answer.headers.get("WWW-Authenticate", "").startswith("Bearer "):
        found.append("401 without a challenge")
    if answer.status == 405 and not answer.headers.get("Allow"):
        found.append("405 without Allow")
    if answer.method == "HEAD":
        return found
    problem = answer.members
    code = problem.get("code")
    if problem.get("status") != answer.status:
        found.append(f"a problem of status {problem.get('status')} in a reply of status {answer.status}")
    if not code or problem.get("type") != f"urn:haltline:problem:{code}":
        found.append(f"a problem of type {problem.get('type')} and code {code}")
    if not problem.get("title") or not problem.get("detail"):
        found.append("a problem that does not say what to do")
    return found


def writes(answer: Answer, *, before: int) -> int:
    """Return how many entries a request may have written, by what it was answered: 0 or 1.

    Args:
        answer: what it was answered.
        before: the head of the log before it.
    """
    path = answer.path.rstrip("/")
    if answer.method == "PUT" and answer.status == 200 and path == "/v1/settings":
        seq = json.loads(answer.body)["seq"]
        return int(seq is not None and seq > before)  # the same settings again are no change
    if answer.method == "POST" and answer.status == 201 and path in WRITERS:
        return 1
    return 1 if answer.method == "DELETE" and answer.status == 204 and path.startswith("/v1/tokens/") else 0


class Witness:
    """Stands before an application that is asked by one thread, and fails on the first reply that breaks a promise.

    Args:
        wsgi: the application.
        head: returns the seq of the log's newest entry.

    Attributes:
        requests: how many it has seen.
        flips: how many kills and revives were answered as newly durable.
    """

    def __init__(self, wsgi: Wsgi, *, head: Callable[[], int]) -> None:
        self._wsgi = wsgi
        self._head = head
        self.requests = 0
        self.flips = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Serve one request and judge its reply."""
        # Of the request itself: the application may have changed its copy.
        method = environ["REQUEST_METHOD"]
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
        before = self._head()
        pieces, status, headers = run_wsgi_app(self._wsgi, environ)
        with closing(ClosingIterator(pieces, getattr(pieces, "close", None))) as whole:
            # A lease stream goes on for seconds: its first frame is what answers.
            streamed = path == "/v1/lease" and headers.get("Content-Type") == "application/jsonl"
            body = b"".join(islice(whole, 1) if streamed else whole)
            answer = Answer(method, path, int(status[:3]), Headers(headers), body)
        wrote = self._head() - before
        self.requests += 1
        found = complaints(answer)
        if wrote != writes(answer, before=before):
            found.append(f"it wrote {wrote} entries")
        said = f"{answer.status} {answer.body[:500]!r}"
        assert not found, f"{method} {path[:200]} was answered {said}: {'; '.join(found)}"
        if answer.status == 201 and path.rstrip("/") != "/v1/tokens":
            self.flips += 1
        start_response(status, list(headers))
        return [answer.body]
