"""The lane: a well-formed lease request is answered without Flask, whose dispatch costs more than the lease itself.

It answers nothing but 200. A request that is not exactly as the protocol has it goes to the route in app/api/lease.py
as it came, which says what is wrong with it; what was refused or failed here goes there to be raised again. So there is
one place where problems are worded, logged and documented.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from app.api.auth import authenticate
from app.api.fields import grammar
from app.api.granting import Asked, grant
from app.api.metrics import Metrics
from app.api.schemas import LeaseBody
from app.api.strict_json import BODY_LIMIT
from app.domain.access import Permission
from app.service.frames import LeaseRequest
from app.service.node import Node
from haltline.canonical import MAX_INTEGER, parse
from haltline.errors import InvalidDocument

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PATH: Final = "/v1/lease"

FAILED: Final = "haltline.failed"
"""Where the environment of a request has what the application has to raise instead of serving it."""

_OK: Final = f"{HTTPStatus.OK.value} {HTTPStatus.OK.phrase}"
_NEEDED: Final = frozenset(name for name, field in LeaseBody().fields.items() if field.required)

# The schema's own patterns: a grammar stands in one place, be it checked here or there.
_GRAMMAR: Final = {
    name: grammar(field.metadata["pattern"]).fullmatch
    for name, field in LeaseBody().fields.items()
    if "pattern" in field.metadata
}
_NONCE, _WORKER, _INSTANCE = _GRAMMAR["nonce"], _GRAMMAR["worker"], _GRAMMAR["instance"]
_NAMESPACE, _EPOCH, _HASH = _GRAMMAR["namespace"], _GRAMMAR["epoch"], _GRAMMAR["hash"]


def asked_by(data: bytes) -> Asked | None:
    """Return what a body asks for; None if :class:`app.api.schemas.LeaseBody` might refuse it."""
    try:
        members = parse(data)
    except InvalidDocument:
        return None
    if type(members) is not dict or not members.keys() >= _NEEDED:
        return None
    nonce, epoch, seq, hashed = members["nonce"], members["epoch"], members["seq"], members["hash"]
    worker, instance, namespace = members["worker"], members["instance"], members.get("namespace")
    if (
        len(members) == len(_NEEDED) + ("namespace" in members)
        and members["stream"] is False
        and type(seq) is int
        and 0 <= seq <= MAX_INTEGER
        and type(nonce) is type(worker) is type(instance) is str
        and _NONCE(nonce)
        and _WORKER(worker)
        and _INSTANCE(instance)
        and (epoch is None or (type(epoch) is str and _EPOCH(epoch)))
        and (hashed is None or (type(hashed) is str and _HASH(hashed)))
        and (seq == 0 or (epoch is not None and hashed is not None))
        and ("namespace" not in members or (type(namespace) is str and _NAMESPACE(namespace)))
    ):
        return Asked(LeaseRequest(nonce, epoch, seq, hashed), namespace)
    return None


class LeaseLane:
    """Stands in front of the application."""

    def __init__(
        self, application: WSGIApplication, node: Node, metrics: Metrics, *, headers: Iterable[tuple[str, str]]
    ) -> None:
        """Set up.

        Args:
            application: what serves everything else.
            node: what leases are granted by.
            metrics: where requests are counted.
            headers: the headers of every reply.
        """
        self._application = application
        self._node = node
        self._metrics = metrics
        self._headers = [*headers, ("Content-Type", "application/json")]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        if environ.get("PATH_INFO") != PATH or environ["REQUEST_METHOD"] != "POST":
            return self._application(environ, start_response)
        # The request line and headers have been read by now: a lease may be dated against this, never earlier.
        received_at_us = self._node.clocks.raw_us_ceil()
        began_s = time.perf_counter()
        asked = _asked(environ)
        if asked is None:
            return self._application(environ, start_response)
        try:
            who = authenticate(self._node, environ.get("HTTP_AUTHORIZATION"), Permission.LEASE)
            frame = grant(self._node, who, asked, received_at_us=received_at_us)
        except Exception as error:  # noqa: BLE001 - it decides nothing: the application raises it again, and answers it
            environ[FAILED] = error
            return self._application(environ, start_response)
        start_response(_OK, [*self._headers, ("Content-Length", str(len(frame)))])
        self._metrics.count(PATH, "POST", HTTPStatus.OK, time.perf_counter() - began_s)
        return [frame]


def _asked(environ: dict[str, Any]) -> Asked | None:
    """Return what a request asks for; None, with the body still to be read, if the route has to look at it."""
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
    data = environ["wsgi.input"].read(int(length))
    environ["wsgi.input"] = io.BytesIO(data)
    return asked_by(data) if len(data) == int(length) else None
