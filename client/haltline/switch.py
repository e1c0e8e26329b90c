"""The kill switch of one process: where the service is, and the runs that ask it."""

from __future__ import annotations

import functools
import os
import re
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from haltline.clocks import Clocks
from haltline.errors import ConfigurationError
from haltline.flips import Position
from haltline.refresher import LeaseTransport, Refresher
from haltline.run import Run
from haltline.scopes import check_id, path
from haltline.transport import Transport, parse_address
from haltline.verdict import Stop

_TOKEN: Final = re.compile(r"hlt_([a-z0-9][a-z0-9-]{0,31})_[a-z0-9]{12}_[A-Za-z0-9]{49}", re.ASCII)


def namespace_of(token: str) -> str:
    """Return the namespace that a token names.

    Raises:
        ConfigurationError: it is not a Haltline token. The message does not repeat it.
    """
    shape = _TOKEN.fullmatch(token)
    if shape is None:
        raise ConfigurationError("this is not a Haltline token: it should look like hlt_<namespace>_<id>_<secret>")
    return shape.group(1)


def worker_name() -> str:
    """Return a name for this process in reports: host and process id."""
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname(), flags=re.ASCII).lstrip("._-") or "host"
    return f"{host[:100]}.{os.getpid()}"


class KillSwitch:
    """The kill switch of one process.

    Make one and keep it: it holds one lease in memory, renewed by one background thread that starts with the first run.
    It survives ``fork``: a child has to be granted a lease of its own.

    Args:
        url: where the service answers, ``http://host:port``; by default the environment variable HALTLINE_URL.
        token: a worker token; by default the environment variable HALTLINE_TOKEN.
        worker: this process's name in reports, a valid id; by default host and process id.
        clocks: the machine's clocks, or a test's.
        connect: makes what carries the lease requests, for tests; by default HTTP to ``url``.
        background: False renews the lease only in whoever waits for it, for tests with a manual clock.

    Raises:
        ConfigurationError: the address or the token is missing or malformed.
        InvalidTarget: ``worker`` is not a valid id.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        worker: str | None = None,
        clocks: Clocks | None = None,
        connect: Callable[[], LeaseTransport] | None = None,
        background: bool = True,
    ) -> None:
        url = url if url is not None else os.environ.get("HALTLINE_URL")
        secret = token if token is not None else os.environ.get("HALTLINE_TOKEN")
        if not url:
            raise ConfigurationError("no address: give KillSwitch(url) or set HALTLINE_URL")
        if not secret:
            raise ConfigurationError("no token: give KillSwitch(token=...) or set HALTLINE_TOKEN")
        namespace = namespace_of(secret)
        address = parse_address(url)
        self._clocks = clocks if clocks is not None else Clocks()
        self._address = address

        def http() -> LeaseTransport:
            return Transport(address, token=secret, clocks=self._clocks)

        self._refresher = Refresher(
            connect if connect is not None else http,
            worker=worker_name if worker is None else functools.partial(str, check_id(worker, "worker")),
            namespace=namespace,
            clocks=self._clocks,
            background=background,
        )

    def __repr__(self) -> str:
        """Return where the service is, never the token."""
        return f"<KillSwitch {self._address}>"

    def run(self, run_id: str, *, tenant: str | None = None, feature: str | None = None, timeout: float = 2.0) -> Run:
        """Return a run, to be entered with ``with`` or ``async with``.

        Args:
            run_id: the run's id, which an operator kills by ``haltline kill run <id>``.
            tenant: the tenant that it works for, if any.
            feature: the feature that it belongs to, if any.
            timeout: how long entering waits for a live lease, seconds.

        Raises:
            InvalidTarget: one of the ids is outside the grammar.
        """
        return Run(
            run_id,
            path=path(run_id, tenant=tenant, feature=feature),
            tenant=tenant,
            feature=feature,
            refresher=self._refresher,
            clocks=self._clocks,
            timeout=timeout,
        )

    @property
    def live(self) -> bool:
        """Whether this process holds a live lease right now; a health check, not a permission."""
        return self._refresher.live()

    @property
    def position(self) -> Position:
        """How far this process has applied the log."""
        return self._refresher.lease.replica.position

    @property
    def trouble(self) -> Stop | None:
        """Why no run may go on right now; None while the lease is live."""
        lease = self._refresher.lease
        return None if self._refresher.live() else lease.stop

    def ensure(self, timeout: float = 2.0) -> bool:
        """Wait up to ``timeout`` seconds for a live lease, and return whether there is one."""
        self._refresher.ensure(timeout)
        return self._refresher.live()

    def close(self) -> None:
        """End the lease and the background thread. Every run of this switch is then Unverified."""
        self._refresher.close()

    def __enter__(self) -> Self:
        """Return the switch itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the switch."""
        self.close()
