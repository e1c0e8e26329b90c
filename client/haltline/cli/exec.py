"""``haltline exec``: any program, in any language, under a run: a kill of the run ends it and all that it started."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from haltline.address import parse_addresses
from haltline.cleanup import Cleanup
from haltline.cli.exits import Ended, Exit
from haltline.cli.session import Session
from haltline.errors import ConfigurationError, InvalidCarrier, InvalidTarget, Killed, Unverified
from haltline.guard import Plan, Why
from haltline.kills import Watch
from haltline.supervisor import Over, Supervisor, before_start, owns_terminal
from haltline.switch import KillSwitch

if TYPE_CHECKING:
    from haltline.run import Run

STOPPED: Final = 75
"""The run was stopped by a kill: not an error of the command, and no success (EX_TEMPFAIL)."""

NO_LEASE: Final = 69
"""Nothing proved that the command may run: it was not started, or ended under ``--strict`` (EX_UNAVAILABLE)."""

VARIABLE: Final = "HALTLINE_RUN"

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", re.ASCII)
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_S: Final = 7 * 86400.0

_OUTCOMES: Final = {
    Why.EXITED: "ended",
    Why.SIGNALLED: "signalled",
    Why.KILLED: "stopped",
    Why.LAPSED: "unverified",
    Why.ORPHANED: "broken",
}


def seconds_of(option: str, text: str) -> float:
    """Return what a duration such as ``500ms``, ``30s``, ``5m`` or ``2h`` is, seconds; a bare number is seconds.

    Raises:
        Ended: it is none, or longer than a week.
    """
    shape = _DURATION.fullmatch(text)
    seconds = float(shape[1]) * _UNITS[shape[2] or "s"] if shape is not None else -1.0
    if not 0 <= seconds <= _LONGEST_S:
        raise Ended(Exit.USAGE, f"{option} {text!r:.40}: write it as 500ms, 30s, 5m or 2h, at most 7 days")
    return seconds


@dataclass(frozen=True, slots=True)
class Place:
    """Which run the command is.

    Attributes:
        run: the id of a run of its own.
        child: the name of a child of the run that this process was given.
        tenant: the tenant that the run works for.
        feature: the feature that it belongs to.
    """

    run: str | None
    child: str | None
    tenant: str | None
    feature: str | None


def supervise(session: Session, plan: Plan, place: Place, watch: Watch) -> int:
    """Run a command under a run, and return the exit code to end with.

    Raises:
        Ended: a setting or an id is missing or malformed; nothing was started.
    """
    settings = session.settings
    urls = [str(address) for address in settings.addresses]
    ca = os.path.abspath(settings.trust.ca) if settings.trust.ca is not None else None  # noqa: PTH100 - a text for a variable
    # The guard first: a process that has threads must not fork. What follows makes them.
    with (
        Supervisor(plan, lambda text: session.screen.tell(f"haltline: {text}")) as supervisor,
        KillSwitch(urls, token=settings.token, ca=ca, plain_http=True) as switch,
    ):
        run, asked, over = None, 0, None
        try:
            run = _run(supervisor, switch, place, session)
            asked = supervisor.arm(run, session.left_s)
        except (InvalidTarget, InvalidCarrier) as error:
            raise Ended(Exit.USAGE, str(error)) from None
        except Killed as killed:
            over = before_start(killed.verdict)
        except Unverified as unverified:
            over = Over(Why.LAPSED, 0, error=str(unverified))
        if over is None and asked:
            over = Over(Why.SIGNALLED, 128 + asked, error=f"asked to end by {signal.Signals(asked).name}")
        if over is None and run is not None:
            given = {"HALTLINE_URL": ",".join(urls), "HALTLINE_TOKEN": settings.token, VARIABLE: run.carried.text}
            if ca is not None:
                given["HALTLINE_CA"] = ca
            if _beyond(urls):
                given["HALTLINE_PLAIN_HTTP"] = "1"
            over = supervisor.carry_out(switch, run, {**os.environ, **given}, watch)
        assert over is not None  # noqa: S101 - one of the cases above
        if run is not None and over.stop is not None and not over.error:
            run.has_ended("killed" if over.escalated else "cleanup", _cleanups(over))
        return _ended(session, place, run, over)


def _run(supervisor: Supervisor, switch: KillSwitch, place: Place, session: Session) -> Run:
    """Return the run that the command is, not yet armed."""
    given = os.environ.get(VARIABLE)
    if given is None:
        if place.child is not None:
            raise Ended(Exit.USAGE, f"--child needs a run to be a child of, and {VARIABLE} names none: use --run")
        if place.run is None:
            raise Ended(Exit.USAGE, f"no run: name it with --run, as in --run r-42; {VARIABLE} names none either")
        return switch.run(place.run, tenant=place.tenant, feature=place.feature, timeout=session.timeout_s)
    parent = switch.join({VARIABLE: given})
    if place.run not in (None, parent.id):
        raise Ended(
            Exit.USAGE,
            f"this is run {parent.id} already, by {VARIABLE}: a run of another id would escape what stops that one",
            f"Use --child NAME for a run below it. If it is to be independent: env -u {VARIABLE} haltline exec ...",
        )
    for word, ours, theirs in (("tenant", place.tenant, parent.tenant), ("feature", place.feature, parent.feature)):
        if ours not in (None, theirs):
            raise Ended(Exit.USAGE, f"--{word} {ours} is not the {word} of run {parent.id}, which {VARIABLE} names")
    if place.child is None:
        return parent
    supervisor.arm(parent, session.left_s)
    return parent.child(place.child)


def _beyond(urls: list[str]) -> bool:
    try:
        parse_addresses(urls, plain_http=False)
    except ConfigurationError:
        return True
    return False


def _ended(session: Session, place: Place, run: Run | None, over: Over) -> int:
    """Say how it ended, and return the exit code."""
    code = {Why.KILLED: STOPPED, Why.LAPSED: NO_LEASE}.get(over.why, over.code)
    outcome = "not_started" if over.error and over.why is not Why.KILLED else _OUTCOMES[over.why]
    name = run.id if run is not None else place.run
    tell = session.screen.tell
    if over.error:
        tell(f"haltline: the command was not started: {over.error}")
    elif over.why is Why.KILLED:
        tell(f"haltline: run {name} was stopped ({_how(over)})")
    elif over.why is Why.LAPSED:
        tell(f"haltline: run {name} was ended, since nothing proved that it may go on ({_how(over)})")
    elif over.stop is not None:
        tell(f"haltline: run {name} is stopped; the command ended by itself before that, or was let finish")
    elif over.escalated:
        tell(f"haltline: the command has ended; {_how(over)}")
    if not over.whole:
        tell("haltline: some of its processes could not be ended")
    if over.cleanup is not None and over.cleanup["outcome"] != "done":
        tell(f"haltline: the cleanup command {over.cleanup['outcome']}: {over.cleanup['detail']}")
    if session.screen.as_json:
        members: Mapping[str, Any] = {
            "ok": outcome == "ended" and code == 0,
            "outcome": outcome,
            "exit": code,
            "run": name,
            "flip": over.flip,
            "command_exit": None if over.error else over.code,
            "escalated": over.escalated,
            "cleanup": over.cleanup,
            **({"error": over.error} if over.error else {}),
        }
        sys.stderr.write(f"{json.dumps(members)}\n")  # standard output is the command's
    return code


def _cleanups(over: Over) -> tuple[Cleanup, ...]:
    """Return what became of the cleanup command, as it is told to the service."""
    told = over.cleanup
    return () if told is None else (Cleanup(told["name"], told["outcome"], told["seconds"], told["detail"]),)


def _how(over: Over) -> str:
    if not over.escalated:
        return "it ended within the grace"
    return f"{over.escalated} of its processes had to be killed after the grace"


def plan_of(command: tuple[str, ...], *, grace_s: float, cleanup: str | None, cleanup_s: float) -> Plan:
    """Return the plan for a command of this process's terminal."""
    return Plan(command, grace_s, cleanup, cleanup_s, terminal=owns_terminal())
