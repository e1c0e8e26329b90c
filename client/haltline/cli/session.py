"""What every command has: settings, one deadline, a screen, and the outside behind one value."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from haltline.cli.exchange import WRONG_LANE, Answer, Ask, HttpWire, Wire, code_of, told
from haltline.cli.exits import Ended, Exit
from haltline.cli.screen import Screen
from haltline.cli.settings import Settings, resolve
from haltline.cli.ways import Way, Ways
from haltline.clocks import LEASE_CLOCK, Clocks
from haltline.errors import InvalidTarget, ServiceError
from haltline.scopes import Target, parse_target, target

DEFAULT_TIMEOUT_S: Final = 5.0
"""For how long a command waits for the service in all, seconds."""


@dataclass(frozen=True, slots=True)
class Outside:
    """The outside of a command, injectable for tests.

    Attributes:
        environment: the environment variables; None for this process's.
        clocks: the clocks that deadlines and the countdown are read on.
        sleep: waits so many seconds.
        connect: makes what carries requests to the one address of these settings.
    """

    environment: Mapping[str, str] | None = None
    clocks: Clocks = field(default_factory=Clocks)
    sleep: Callable[[float], None] = time.sleep
    connect: Callable[[Settings, Clocks], Wire] = HttpWire


@dataclass(frozen=True, slots=True)
class Common:
    """The options that every command takes; None where one was not given.

    Attributes:
        url: the service's addresses, separated by commas.
        token_file: a file that holds nothing but a token.
        ca: a file of CAs to trust instead of the system's.
        plain_http: whether plain http to another machine is permitted.
        timeout: for how long to wait for the service in all, seconds.
        as_json: whether to print JSON.
    """

    url: str | None = None
    token_file: str | None = None
    ca: str | None = None
    plain_http: bool = False
    timeout: float | None = None
    as_json: bool = False

    def or_else(self, outer: Common) -> Common:
        """Return these options, completed by those given before the command's name."""
        return Common(
            self.url if self.url is not None else outer.url,
            self.token_file if self.token_file is not None else outer.token_file,
            self.ca if self.ca is not None else outer.ca,
            self.plain_http or outer.plain_http,
            self.timeout if self.timeout is not None else outer.timeout,
            self.as_json or outer.as_json,
        )


class Session:
    """One command that is being carried out.

    Args:
        common: the options that every command takes.
        outside: the clocks, the environment and the network.

    Attributes:
        screen: where it shows what it found.
        sleep: waits so many seconds.
    """

    def __init__(self, common: Common, outside: Outside) -> None:
        self.screen = Screen(as_json=common.as_json)
        self.sleep = outside.sleep
        self.timeout_s = common.timeout if common.timeout is not None else DEFAULT_TIMEOUT_S
        self._common = common
        self._outside = outside
        self._until = self.now() + self.timeout_s
        self._ways: tuple[Way, ...] = ()
        self._wire: Ways | None = None
        self._settings: Settings | None = None

    def now(self) -> float:
        """Return a clock that is never set and that counts time spent asleep, seconds."""
        return self._outside.clocks.gettime(LEASE_CLOCK)

    @property
    def left_s(self) -> float:
        """How much of the command's time is left, seconds."""
        return max(0.0, self._until - self.now())

    @property
    def ways(self) -> tuple[Way, ...]:
        """The ways to the service, one for each of its addresses: for flips.

        Raises:
            Ended: an address or the token is missing or malformed.
        """
        if not self._ways:
            connect, clocks = self._outside.connect, self._outside.clocks
            self._ways = tuple(Way(str(each.addresses[0]), connect(each, clocks)) for each in self.settings.each)
        return self._ways

    @property
    def wire(self) -> Ways:
        """The way to whichever address answers: for questions, which change nothing.

        Raises:
            Ended: an address or the token is missing or malformed.
        """
        if self._wire is None:
            self._wire = Ways(self.ways, self.now)
        return self._wire

    @property
    def settings(self) -> Settings:
        """Where the service is and who asks.

        Raises:
            Ended: the address or the token is missing or malformed.
        """
        if self._settings is None:
            environment = self._outside.environment if self._outside.environment is not None else os.environ
            self._settings = resolve(
                environment,
                url=self._common.url,
                token_file=self._common.token_file,
                ca=self._common.ca,
                plain_http=self._common.plain_http,
                warn=self.screen.warn,
            )
        return self._settings

    def get(self, path: str, *, accept: tuple[int, ...] = (200,)) -> Answer:
        """Return the answer to a question that changes nothing; its members are a JSON object.

        Raises:
            Ended: no whole answer came, or it is another one than those accepted.
        """
        wire = self.wire
        try:
            answer = wire.send(Ask("GET", path), self.left_s)
        except ServiceError as error:
            raise Ended(Exit.NOT_DONE, f"no answer: {error}", REACH) from error
        if answer.status not in accept or answer.members is None:
            more = (CONTROL,) if code_of(answer) == WRONG_LANE else ()
            raise refused(told(answer), answer.status, answer.members, *more)
        return answer

    def again(self, *words: str) -> str:
        """Return a command line to be typed again, with the options that this one was given."""
        line = ["haltline", *words]
        if self._common.url is not None:
            line += ["--url", self._common.url]
        if self._common.token_file is not None:
            line += ["--token-file", self._common.token_file]
        if self._common.ca is not None:
            line += ["--ca", self._common.ca]
        if self._common.plain_http:
            line.append("--plain-http")
        return shlex.join(line)


REACH: Final = "Is the address right (--url, HALTLINE_URL), and does the service run?"

CONTROL: Final = "Name the addresses of the control lanes: --url https://one:8787,https://two:8787 or HALTLINE_URL."
"""What to do where only worker lanes were named."""


def refused(said: str, status: int, members: Mapping[str, Any] | None, *more: str) -> Ended:
    """Return the end of a command that the service refused."""
    problem = {"status": status, "problem": dict(members) if members else None}
    return Ended(Exit.REFUSED, f"refused: {said}", *more, members=problem)


def target_of(scope: str, identifier: str | None) -> Target:
    """Return the target that ``SCOPE ID``, ``SCOPE:ID`` or ``global`` on a command line names.

    Raises:
        Ended: it is outside the grammar.
    """
    try:
        return parse_target(scope) if identifier is None else target(scope, identifier)
    except InvalidTarget as error:
        raise Ended(Exit.USAGE, str(error)) from None


def words_of(named: Target) -> tuple[str, ...]:
    """Return a target as it is typed."""
    return (named.scope.value, named.id) if named.id else (named.scope.value,)


def path_of(named: Target) -> str:
    """Return the path of a target's flag; ids need no quoting, their grammar is that of a path segment."""
    return f"/v1/flags/{'/'.join(words_of(named))}"
