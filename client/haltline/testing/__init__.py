"""Support for the tests of code that uses Haltline: a service in memory, and clocks that move when told to.

No network, no waiting and no patching: what runs is the real client against a small service on the same pure core.

    >>> from haltline import CapabilityFrozen
    >>> from haltline.testing import fake_switch, killed
    >>> with fake_switch() as switch, switch.run("r-42") as run:
    ...     run.check("send_email")
    ...     with killed("capability:send_email"):
    ...         try:
    ...             run.check("send_email")
    ...         except CapabilityFrozen as frozen:
    ...             print(frozen.capability)
    ...     run.check("send_email")
    send_email
"""

from __future__ import annotations

from haltline.testing.clock import ManualClock
from haltline.testing.killing import fake_switch, killed
from haltline.testing.service import FakeService
from haltline.testing.switch import FakeSwitch

__all__ = [
    "FakeService",
    "FakeSwitch",
    "ManualClock",
    "fake_switch",
    "killed",
]
