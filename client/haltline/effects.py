"""A side effect: asked for last thing before it happens, and ended with the calls in flight."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from haltline.abortable import Abortable
from haltline.aborting import Callback

if TYPE_CHECKING:
    from haltline.run import Run

KEY_MAX: Final = 255
"""The longest idempotency key, characters."""


def check_key(key: object) -> str:
    """Return ``key`` if it is a valid idempotency key: 1 to 255 printable ASCII characters without a space.

    Raises:
        ValueError: it is not.
    """
    if type(key) is not str or not 0 < len(key) <= KEY_MAX or not all("!" <= each <= "~" for each in key):
        raise ValueError("an idempotency key is 1 to 255 printable ASCII characters without a space")
    return key


class Effect:
    """One side effect of a run, made by :meth:`haltline.run.Run.effect`.

    Entering asks whether it may happen. ``async with`` also cancels the task if a kill ends calls in flight; with
    ``with``, give :meth:`on_abort` what ends the call.

    Attributes:
        capability: the capability that it uses.
        key: its idempotency key, if it has one.
    """

    __slots__ = ("_call", "_inside", "_run", "capability", "key")

    def __init__(self, run: Run, capability: str, key: str | None) -> None:
        self._run = run
        self.capability = capability
        self.key = key
        self._call: Abortable | None = None
        self._inside = False

    def __enter__(self) -> Self:
        """Ask.

        Raises:
            Killed: the run is stopped; likewise Unverified and CapabilityFrozen.
        """
        if self._inside:
            raise RuntimeError("this block is entered already: make another run.effect(...) for another effect")
        self._run.check(self.capability)
        self._inside = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave; what broke because of a kill surfaces as the kill."""
        self._inside = False
        call = self._call
        if call is not None:
            self._call = None
            call.__exit__(kind, error, trace)

    async def __aenter__(self) -> Self:
        """As ``with``, and the task is cancelled if a kill ends calls in flight."""
        if self._inside:
            raise RuntimeError("this block is entered already: make another run.effect(...) for another effect")
        call = Abortable(self._run, self.capability)
        await call.__aenter__()
        self._call, self._inside = call, True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave; a cancellation that is the kill's surfaces as the kill."""
        self._inside = False
        call, self._call = self._call, None
        if call is not None:
            await call.__aexit__(kind, error, trace)

    @property
    def aborted(self) -> bool:
        """Whether a kill has ended this effect's call."""
        return self._call is not None and self._call.aborted

    def on_abort(self, callback: Callback) -> Callback:
        """Have ``callback`` called once if a kill ends this call; see :meth:`haltline.abortable.Abortable.on_abort`."""
        if not self._inside:
            raise RuntimeError("on_abort() belongs inside the block: with run.effect(...) as effect: ...")
        if self._call is None:
            call = Abortable(self._run, self.capability)
            call.__enter__()
            self._call = call
        return self._call.on_abort(callback)
