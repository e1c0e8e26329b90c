"""A switch that is connected to a service in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haltline.clocks import Clocks
from haltline.switch import Driver, KillSwitch
from haltline.testing.line import FakeLine

if TYPE_CHECKING:
    from haltline.testing.service import FakeService

_URL: Final = "https://fake.invalid"


class FakeSwitch(KillSwitch):
    """A switch that is connected to a fake service; made by :meth:`FakeService.switch` or :func:`fake_switch`.

    Attributes:
        service: the service.
        clock: the service's clock, which also ends this switch's leases unless it runs in the background.
    """

    def __init__(self, service: FakeService, *, background: bool = False, worker: str = "worker-1") -> None:
        self.service = service
        self.clock = service.clock
        super().__init__(
            _URL,
            token=service.token,
            worker=worker,
            driver=Driver(
                Clocks() if background else service.clock.clocks,
                connect=lambda: FakeLine(service, Clocks() if background else None),
                background=background,
            ),
        )

    def renew(self, timeout: float = 2.0) -> bool:
        """Renew the lease now, and return whether it is live.

        Args:
            timeout: how long to wait for a background thread to have applied the whole log, seconds.
        """
        refresher = self._refresher
        if refresher.closed:
            return False
        if refresher.background:
            refresher.wait(lambda: self.position == self.service.position, timeout, urgent=True)
        else:
            refresher.renew()
        return self.live
