"""Waiting for a lease in asyncio: the background thread renews, the event loop only sleeps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from haltline.refresher import Refresher


async def wait(refresher: Refresher, ready: Callable[[], bool], timeout: float | None) -> bool:
    """Wait until ``ready()``, which is asked after each renewal, and return whether it was.

    Args:
        refresher: renews the lease.
        ready: the condition; it must be quick and must not raise.
        timeout: seconds; None for no end.
    """
    import asyncio  # 30 ms that importing the client need not cost

    if ready():
        return True
    if not refresher.background:
        return refresher.wait(ready, timeout, urgent=True)
    loop = asyncio.get_running_loop()
    renewed = asyncio.Event()

    def wake() -> None:
        # The loop may have been closed between the renewal and this call: then nobody waits any more.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(renewed.set)

    forget = refresher.listen(wake)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not ready() and not refresher.closed:
                    renewed.clear()
                    if not ready():
                        with suppress(TimeoutError):
                            # Woken by each renewal; the bound only guards against a thread that died between two.
                            async with asyncio.timeout(0.5):
                                await renewed.wait()
                        refresher.kick()
    finally:
        forget()
    return ready()
