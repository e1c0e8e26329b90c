"""The few calls that the sample makes to the service for itself: readiness, tokens, and which targets are killed."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sample.crew import Assignment
from sample.ports import LOOPBACK
from sample.troubles import Trouble

_TIMEOUT_S: Final = 5.0


class Api:
    """The service's API.

    Args:
        ports: where it is answered, on 127.0.0.1: each is tried in turn until one answers.
        token: an admin token.
    """

    def __init__(self, ports: Sequence[int], token: str) -> None:
        self._ports = ports
        self._token = token

    def __repr__(self) -> str:
        """Return the ports, never the token."""
        return f"<Api {LOOPBACK} {self._ports}>"

    def issue(self, subject: str, role: str, *, tenants: Iterable[str] = ()) -> tuple[str, str]:
        """Make a token for a day and return it: its id, and its text.

        Args:
            subject: whom it names.
            role: what it is for.
            tenants: the tenants it is bound to; none for no binding.

        Raises:
            Trouble: the service did not.
        """
        body: dict[str, Any] = {"subject": subject, "role": role, "expires_in_days": 1}
        if bound := list(tenants):
            body["tenants"] = bound
        made = self._call("POST", "/v1/tokens", body)
        return made["token_id"], made["token"]

    def revoke(self, token_id: str) -> None:
        """Revoke a token.

        Raises:
            Trouble: the service did not.
        """
        self._call("DELETE", f"/v1/tokens/{token_id}")

    def killed(self) -> frozenset[str]:
        """Return the targets that are killed.

        Raises:
            Trouble: the service did not say.
        """
        targets: set[str] = set()
        cursor = ""
        while True:
            page = self._call("GET", f"/v1/flags?limit=1000{cursor}")
            targets.update(flag["target"] for flag in page["flags"] if flag["killed"])
            if page["next_cursor"] is None:
                return frozenset(targets)
            cursor = f"&cursor={page['next_cursor']}"

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        status, answer = self._answered(method, path, None if body is None else json.dumps(body), headers)
        try:
            members = json.loads(answer) if answer else {}
        except ValueError:
            members = {}
        if status >= 300 or not isinstance(members, dict):
            told = members.get("detail", "") if isinstance(members, dict) else ""
            raise Trouble(f"the service answered {method} {path.partition('?')[0]} with {status} {told}".rstrip())
        return members

    def _answered(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> tuple[int, bytes]:
        for port in self._ports[:-1]:
            with contextlib.suppress(Trouble):
                return exchange(port, method, path, body, headers)
        return exchange(self._ports[-1], method, path, body, headers)


def stands_in_the_way(killed: frozenset[str], assignment: Assignment) -> bool:
    """Return whether a killed target halts the run of an assignment; a frozen capability does not."""
    path = {"global", f"tenant:{assignment.tenant}", f"feature:{assignment.feature}", f"run:{assignment.run}"}
    return bool(killed & path)


def is_ready(port: int) -> bool:
    """Return whether a service on 127.0.0.1 says that it is ready."""
    try:
        return exchange(port, "GET", "/readyz", None, {})[0] == 200
    except Trouble:
        return False


def exchange(port: int, method: str, path: str, body: str | None, headers: dict[str, str]) -> tuple[int, bytes]:
    """Return status and body of one exchange with 127.0.0.1.

    Raises:
        Trouble: no answer came.
    """
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_TIMEOUT_S)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        told = str(error) or type(error).__name__
        raise Trouble(f"the service on port {port} did not answer {method} {path}: {told}") from error
    finally:
        connection.close()
