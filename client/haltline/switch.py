"""The kill switch of one process: where the service is, and the runs that ask it."""

from __future__ import annotations

import functools
import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from haltline.address import parse_addresses
from haltline.carried import Carried
from haltline.clocks import Clocks
from haltline.errors import ConfigurationError
from haltline.flips import Position
from haltline.joined import Joined
from haltline.lineage import Lineage
from haltline.plans import Discarded
from haltline.propagation import Headers, carried_by
from haltline.refresher import LeaseTransport, Refresher
from haltline.run import Run
from haltline.scopes import check_id
from haltline.tls import Trust
from haltline.transport import Transport
from haltline.verdict import Stop
from haltline.watchdog import GRACE_S, AfterGrace, Grace

if TYPE_CHECKING:
    from haltline.planned import Redeemed, Redeeming

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


@dataclass(frozen=True, slots=True)
class Driver:
    """What drives a switch: the machine and the network, or a test.

    Attributes:
        clocks: the machine's clocks, or a test's.
        connect: makes what carries the lease requests; None for HTTP to the switch's addresses.
        background: whether a thread of its own renews the lease. False renews it only in whoever waits for it, for
            tests with a manual clock.
    """

    clocks: Clocks = field(default_factory=Clocks)
    connect: Callable[[], LeaseTransport] | None = None
    background: bool = True


def plain_http_of(environment: Mapping[str, str]) -> bool:
    """Return whether HALTLINE_PLAIN_HTTP permits plain http to another machine.

    Raises:
        ConfigurationError: it is neither 1 nor 0.
    """
    given = environment.get("HALTLINE_PLAIN_HTTP", "")
    if given not in ("", "0", "1"):
        raise ConfigurationError(f"HALTLINE_PLAIN_HTTP is {given!r:.20}: write 1 to permit plain http, or 0")
    return given == "1"


class KillSwitch:
    """The kill switch of one process.

    Make one and keep it: it holds one lease in memory, renewed by one background thread that starts with the first run.
    It survives ``fork``: a child has to be granted a lease of its own.

    Args:
        url: where the service answers, ``https://host:port``: one address or several, in a sequence or separated by
            commas. They are tried in this order, and the one that works is kept to. By default the environment
            variable HALTLINE_URL.
        token: a worker token; by default the environment variable HALTLINE_TOKEN.
        worker: this process's name in reports, a valid id; by default host and process id.
        ca: a PEM file of the CA that the service's certificate is from, to be believed instead of the system's CAs; by
            default the environment variable HALTLINE_CA.
        plain_http: whether ``http://`` is permitted to another machine than this one; by default the environment
            variable HALTLINE_PLAIN_HTTP, ``1`` to permit it.
        stream: whether to hold a lease stream, by which a kill arrives within milliseconds; False asks for one frame at
            a time, every third of the ttl.
        grace: how long a run has from a kill on to leave its block, cleanups included, seconds, at most 3600.
        after_grace: what comes then: ``nothing`` says so in the log of the process; ``kill`` runs the cleanups, tells
            the service, and ends the process group by SIGKILL.
        driver: what drives it; for tests.

    Raises:
        ConfigurationError: an address, the token or the CA's file is missing, malformed or not permitted.
        InvalidTarget: ``worker`` is not a valid id.
    """

    def __init__(  # noqa: PLR0913 - each is one setting of the one object that a program makes
        self,
        url: str | Sequence[str] | None = None,
        *,
        token: str | None = None,
        worker: str | None = None,
        ca: str | os.PathLike[str] | None = None,
        plain_http: bool | None = None,
        stream: bool = True,
        grace: float = GRACE_S,
        after_grace: AfterGrace = "nothing",
        driver: Driver | None = None,
    ) -> None:
        url = url if url is not None else os.environ.get("HALTLINE_URL")
        secret = token if token is not None else os.environ.get("HALTLINE_TOKEN")
        ca = ca if ca is not None else os.environ.get("HALTLINE_CA") or None
        if not url:
            raise ConfigurationError("no address: give KillSwitch(url) or set HALTLINE_URL")
        if not secret:
            raise ConfigurationError("no token: give KillSwitch(token=...) or set HALTLINE_TOKEN")
        namespace = namespace_of(secret)
        permitted = plain_http if plain_http is not None else plain_http_of(os.environ)
        addresses = parse_addresses(url, plain_http=permitted)
        trust = Trust(os.fspath(ca) if ca is not None else None)
        driver = driver if driver is not None else Driver()
        clocks = driver.clocks
        self._clocks = clocks
        self._addresses = addresses

        def http() -> LeaseTransport:
            return Transport(addresses, token=secret, clocks=clocks, trust=trust)

        self._refresher = Refresher(
            driver.connect if driver.connect is not None else http,
            worker=worker_name if worker is None else functools.partial(str, check_id(worker, "worker")),
            namespace=namespace,
            clocks=clocks,
            background=driver.background,
            stream=stream,
            grace=Grace(grace, after_grace),
        )

    def __repr__(self) -> str:
        """Return where the service answers, never the token."""
        return f"<KillSwitch {','.join(map(str, self._addresses))}>"

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
            Lineage((run_id,), tenant, feature),
            refresher=self._refresher,
            clocks=self._clocks,
            timeout=timeout,
        )

    def join(self, carrier: Carried | Headers, *, timeout: float = 2.0) -> Run:
        """Return a run that was armed in another process, to be entered here with ``with`` or ``async with``.

        Whatever kills it, or a run above it, there or here, has killed it everywhere: it goes on from the log position
        at which it was armed, not from where this process stands.

        Args:
            carrier: what carries it: the headers of a call, a WSGI environ, ``os.environ``, or what
                :func:`haltline.extract` returned. Headers come before the variable HALTLINE_RUN.
            timeout: how long entering waits for a live lease that reaches that position, seconds.

        Raises:
            Unverified: no run is carried, which means stopped.
            InvalidCarrier: what is carried is malformed, cut short, too deep or too long.
        """
        return Joined(carried_by(carrier), refresher=self._refresher, clocks=self._clocks, timeout=timeout)

    def redeem(self, stamp: str, *, payload_hash: str | None = None, timeout: float = 2.0) -> Redeemed:
        """Return planned work that may be carried out, to be entered with ``with`` or ``async with``.

        No call is made. What is inside is judged by the stamp, also while the run that planned it is halted.

        Args:
            stamp: what :meth:`haltline.Run.plan` returned.
            payload_hash: a hash of what is about to be done, to be the one that it was planned with; None not to
                compare it.
            timeout: how long to wait for a live lease, and for this process to reach the stamp's position, seconds.

        Raises:
            StampRefused: the work must not be carried out: drop it, unless it says that it is not ``final``.
            Unverified: nothing proves that it may be, yet: leave it in its queue. It is not refused.
            ValueError: ``payload_hash`` is malformed.
        """
        return self._redeeming(stamp, payload_hash, timeout).redeem()

    async def aredeem(self, stamp: str, *, payload_hash: str | None = None, timeout: float = 2.0) -> Redeemed:
        """As :meth:`redeem`, for asyncio."""
        return await self._redeeming(stamp, payload_hash, timeout).aredeem()

    def discarded(self) -> tuple[Discarded, ...]:
        """Return the planned work that this process has refused for good, the oldest first; at most the newest 1,000.

        Each names what planning it anew takes: the run, for whom it worked, the capability, and the payload's hash.
        """
        return self._refresher.plans.discarded()

    def _redeeming(self, stamp: str, payload_hash: str | None, timeout: float) -> Redeeming:
        from haltline.planned import Redeeming

        return Redeeming(
            stamp, refresher=self._refresher, clocks=self._clocks, timeout=timeout, payload_hash=payload_hash
        )

    @property
    def live(self) -> bool:
        """Whether this process holds a live lease right now; a health check, not a permission."""
        return self._refresher.live()

    @property
    def live_until(self) -> float:
        """When the lease ends as it stands, a reading of the lease clock, seconds; -inf where there is none."""
        return self._refresher.lease.until

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
        """Wait up to ``timeout`` seconds for a live lease, and return whether there is one.

        It may be called as often as one likes: no more is asked of a service that fails than if it were not called.
        """
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
