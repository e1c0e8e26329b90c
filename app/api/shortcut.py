"""The shortcut: well-formed requests of workers are answered without Flask, whose dispatch costs more than they do.

It answers nothing but success, and that there is no place. A request that is not exactly as the protocol has it goes to
the routes in app/api/lease.py and app/api/acks.py as it came, which say what is wrong with it; what was refused or
failed here goes there to be raised again. So there is one place where problems are worded, logged and documented.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from app.api.auth import authenticate
from app.api.fields import grammar
from app.api.granting import (
    AGAIN,
    Applied,
    Asked,
    StreamReply,
    acknowledge,
    again,
    applied_of,
    asked_of,
    grant,
    stream,
    turn,
)
from app.api.lease import STREAM_TYPE, UNBUFFERED
from app.api.metrics import Metrics
from app.api.problems import CONTENT_TYPE, Problem, body_of
from app.api.schemas import AckBody, LeaseBody
from app.api.strict_json import BODY_LIMIT
from app.domain.access import Permission
from app.service.node import Node
from app.service.published import Published
from app.service.streams import Stream
from haltline.canonical import MAX_INTEGER, parse
from haltline.errors import InvalidDocument

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LEASE: Final = "/v1/lease"
ACKS: Final = "/v1/acks"

FAILED: Final = "haltline.failed"
"""Where the environment of a request has what the application has to raise instead of serving it."""

_OK: Final = f"{HTTPStatus.OK.value} {HTTPStatus.OK.phrase}"
_DONE: Final = f"{HTTPStatus.NO_CONTENT.value} {HTTPStatus.NO_CONTENT.phrase}"
_BUSY: Final = f"{HTTPStatus.SERVICE_UNAVAILABLE.value} {HTTPStatus.SERVICE_UNAVAILABLE.phrase}"
_BUSY_BODY: Final = json.dumps(body_of("busy")).encode("ascii")

# The schemas' own patterns: a grammar stands in one place, be it checked here or there.
_GRAMMAR: Final = {
    name: grammar(field.metadata["pattern"]).fullmatch
    for name, field in LeaseBody().fields.items()
    if "pattern" in field.metadata
}
_NONCE, _WORKER, _INSTANCE = _GRAMMAR["nonce"], _GRAMMAR["worker"], _GRAMMAR["instance"]
_NAMESPACE, _EPOCH, _HASH = _GRAMMAR["namespace"], _GRAMMAR["epoch"], _GRAMMAR["hash"]


def _needed(schema: LeaseBody | AckBody) -> frozenset[str]:
    return frozenset(name for name, field in schema.fields.items() if field.required)


_ASKING: Final = _needed(LeaseBody())
_ACKING: Final = _needed(AckBody())


def asked_by(data: bytes) -> Asked | None:
    """Return what a body asks for; None if :class:`app.api.schemas.LeaseBody` might refuse it."""
    members = _members(data, _ASKING)
    if members is None:
        return None
    nonce, epoch, seq, hashed = members["nonce"], members["epoch"], members["seq"], members["hash"]
    if (
        type(members["stream"]) is bool
        and type(seq) is int
        and 0 <= seq <= MAX_INTEGER
        and type(nonce) is str
        and _NONCE(nonce)
        and (epoch is None or (type(epoch) is str and _EPOCH(epoch)))
        and (hashed is None or (type(hashed) is str and _HASH(hashed)))
        and (seq == 0 or (epoch is not None and hashed is not None))
    ):
        return asked_of(members)
    return None


def applied_by(data: bytes) -> Applied | None:
    """Return what a body acknowledges; None if :class:`app.api.schemas.AckBody` might refuse it."""
    members = _members(data, _ACKING)
    if members is None:
        return None
    epoch, seq, hashed = members["epoch"], members["seq"], members["hash"]
    if (
        type(seq) is int
        and 1 <= seq <= MAX_INTEGER
        and type(epoch) is type(hashed) is str
        and _EPOCH(epoch)
        and _HASH(hashed)
    ):
        return applied_of(members)
    return None


def _members(data: bytes, needed: frozenset[str]) -> dict[str, Any] | None:
    """Return the members of a body that has those needed, perhaps a namespace, and no others; who asks is checked."""
    try:
        members = parse(data)
    except InvalidDocument:
        return None
    if type(members) is not dict or not members.keys() >= needed:
        return None
    worker, instance, namespace = members["worker"], members["instance"], members.get("namespace")
    if (
        len(members) == len(needed) + ("namespace" in members)
        and type(worker) is type(instance) is str
        and _WORKER(worker)
        and _INSTANCE(instance)
        and ("namespace" not in members or (type(namespace) is str and _NAMESPACE(namespace)))
    ):
        return members
    return None


class Shortcut:
    """Stands in front of the application."""

    def __init__(
        self, application: WSGIApplication, node: Node, metrics: Metrics, *, headers: Iterable[tuple[str, str]]
    ) -> None:
        """Set up.

        Args:
            application: answers everything else.
            node: the node that grants.
            metrics: counts what is answered here.
            headers: on every reply.
        """
        self._application = application
        self._node = node
        self._metrics = metrics
        self._common = list(headers)
        self._frame = [*self._common, ("Content-Type", "application/json")]
        self._stream = [*self._common, ("Content-Type", STREAM_TYPE), *UNBUFFERED.items()]
        self._busy = [
            *self._common,
            *AGAIN.items(),
            ("Content-Type", CONTENT_TYPE),
            ("Content-Length", str(len(_BUSY_BODY))),
        ]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        path = environ.get("PATH_INFO")
        if (path != LEASE and path != ACKS) or environ["REQUEST_METHOD"] != "POST":  # noqa: PLR1714 - no tuple, no set
            return self._application(environ, start_response)
        # The request line and headers have been read by now: a lease may be dated against this, never earlier.
        received_at_us = self._node.clocks.raw_us_ceil()
        began_s = time.perf_counter()
        data = _body(environ)
        if data is None:
            return self._application(environ, start_response)
        try:
            with turn(self._node, environ):
                if path == LEASE:
                    reply = self._leased(environ, start_response, data, received_at_us, began_s)
                else:
                    reply = self._acked(environ, start_response, data, began_s)
            if reply is not None:
                return reply
        except Problem as problem:
            if problem.code == "busy":
                # Said at once: under a flood the long way round would be what the flood is after.
                start_response(_BUSY, self._busy)
                self._metrics.count(path, "POST", HTTPStatus.SERVICE_UNAVAILABLE, time.perf_counter() - began_s)
                return [_BUSY_BODY]
            environ[FAILED] = problem
        except Exception as error:  # noqa: BLE001 - it decides nothing: the application raises it again, and answers it
            environ[FAILED] = error
        return self._application(environ, start_response)

    def _leased(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        data: bytes,
        received_at_us: int,
        began_s: float,
    ) -> Iterable[bytes] | None:
        asked = asked_by(data)
        if asked is None:
            return None
        who = authenticate(self._node, environ.get("HTTP_AUTHORIZATION"), Permission.LEASE)
        reply: StreamReply | list[bytes]
        if asked.stream:
            reply = stream(self._node, who, asked, received_at_us=received_at_us, follow=self._follow)
            start_response(_OK, [*self._stream])
        else:
            reply = [grant(self._node, who, asked, received_at_us=received_at_us)]
            start_response(_OK, [*self._frame, ("Content-Length", str(len(reply[0])))])
        self._metrics.count(LEASE, "POST", HTTPStatus.OK, time.perf_counter() - began_s)
        return reply

    def _follow(self, ended: Stream, body: bytes, published: Published, received_at_us: int) -> bytes | None:
        asked = asked_by(body)
        if asked is None:
            return None
        first = again(self._node, ended, asked, published, received_at_us=received_at_us)
        if first is not None:
            seconds = (self._node.clocks.raw_us_ceil() - received_at_us) / 1_000_000
            self._metrics.count(LEASE, "POST", HTTPStatus.OK, seconds)
        return first

    def _acked(
        self, environ: WSGIEnvironment, start_response: StartResponse, data: bytes, began_s: float
    ) -> Iterable[bytes] | None:
        applied = applied_by(data)
        if applied is None:
            return None
        authenticate(self._node, environ.get("HTTP_AUTHORIZATION"), Permission.LEASE)
        acknowledge(self._node, applied)
        start_response(_DONE, [*self._common])
        self._metrics.count(ACKS, "POST", HTTPStatus.NO_CONTENT, time.perf_counter() - began_s)
        return []


def _body(environ: dict[str, Any]) -> bytes | None:
    """Return the body of a request; None, with the body still to be read, if the routes have to look at it."""
    length = environ.get("CONTENT_LENGTH", "")
    if (
        environ.get("CONTENT_TYPE") != "application/json"
        or environ.get("QUERY_STRING")
        or "HTTP_CONTENT_ENCODING" in environ
        or "HTTP_TRANSFER_ENCODING" in environ
        or not (length.isascii() and length.isdigit() and len(length) <= len(str(BODY_LIMIT)))
        or int(length) > BODY_LIMIT
    ):
        return None
    data: bytes = environ["wsgi.input"].read(int(length))
    environ["wsgi.input"] = io.BytesIO(data)
    return data if len(data) == int(length) else None
