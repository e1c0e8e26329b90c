"""How committed flips reach the other parts of a node, and the other nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.service.doorbell import Doorbell


def open_doorbell(redis_url: str | None, namespace: str) -> Doorbell:
    """Return the doorbell of a node: of this process alone, or together with that of all nodes on a Redis.

    Nothing is connected before it is started or rung.

    Args:
        redis_url: ``redis://[user:password@]host:port/0``, ``rediss://`` for TLS; None for this process alone.
        namespace: the namespace of the log: nodes of other namespaces are not disturbed.

    Raises:
        ValueError: the address cannot be read; the message does not repeat it.
    """
    # Imported here: the configuration is checked with app.bus.address before gevent patches the process.
    from app.bus.in_process import InProcessDoorbell

    here = InProcessDoorbell()
    if redis_url is None:
        return here
    from app.bus.chorus import Chorus
    from app.bus.redis import RedisDoorbell  # only where there is one: importing it takes longer than the rest
    from app.service.doorbell import BackgroundBell

    return Chorus(here, BackgroundBell(RedisDoorbell(redis_url, namespace)))
