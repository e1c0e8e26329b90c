"""A worker whose token is bound to tenants: what it may run, and what it never says go to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from haltline import Killed, KillSwitch, Unverified
from haltline.ports import LeaseStream
from haltline.renewal import Reply
from haltline.switch import Driver
from haltline.verdict import Reason
from tests.api.desk import Desk


class OverWsgi:
    """Carries lease requests to the application without a network."""

    def __init__(self, desk: Desk, token: str) -> None:
        self._desk = desk
        self._token = token

    def post(self, path: str, body: bytes, *, deadline_s: float, limit: int) -> Reply:  # noqa: ARG002 - the port
        """Post it."""
        came = self._desk.client.post(
            path,
            data=body,
            content_type="application/json",
            headers={"Authorization": f"Bearer {self._token}"},
        )
        return Reply(came.status_code, came.headers["Content-Type"], encoded=False, body=came.get_data())

    def stream(self, path: str, body: bytes, *, deadline_s: float) -> LeaseStream:
        """Only single frames are asked for here."""
        raise NotImplementedError

    def interrupt(self) -> None:
        """Nobody waits."""

    def rotate(self, later_s: float = 0.0) -> float:
        """There is no other."""
        return later_s

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def bound(desk: Desk) -> Iterator[KillSwitch]:
    """Return a switch whose token is bound to the tenant acme."""
    token = desk.tokens["bound_worker"]
    with KillSwitch(
        "https://fake.invalid",
        token=token,
        driver=Driver(connect=lambda: OverWsgi(desk, token), background=False),
    ) as made:
        yield made


def test_a_run_of_another_tenant_never_goes(desk: Desk, bound: KillSwitch) -> None:
    """Its kill would come as a stub and never be seen: so there is no go, killed or not, and waiting ends at once."""
    run = bound.run("r-1", tenant="globex")
    for call in (run.arm, run.check, run.wait):
        with pytest.raises(Unverified):
            call()
    with pytest.raises(Unverified, match="tenant:globex would never be seen") as caught:
        run.arm()
    assert caught.value.verdict.reason is Reason.UNSEEN


def test_runs_of_its_own_tenant_and_of_none_go_and_stop(desk: Desk, bound: KillSwitch) -> None:
    """Bound to acme it runs for acme, and is stopped by a kill of acme, of a run or of the world."""
    with bound.run("r-1", tenant="acme") as mine, bound.run("r-2") as bare:
        mine.check("send_email")
        bare.check("send_email")
        desk.kill("tenant:acme")
        assert bound.ensure(2)
        bound._refresher.renew()  # noqa: SLF001 - with background=False somebody has to
        with pytest.raises(Killed):
            mine.check("send_email")
        bare.check("send_email")
        desk.kill("global")
        bound._refresher.renew()  # noqa: SLF001 - with background=False somebody has to
        with pytest.raises(Killed):
            bare.check("send_email")
