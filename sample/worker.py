r"""A worker: one process, one run, one campaign. It uses the client as any user would.

    HALTLINE_URL=... HALTLINE_TOKEN=... python -m sample.worker --worker w-1 --run r-1 --tenant acme \
        --feature outreach --contacts contacts.tsv --smtp-port 2525 --rate 100

A frozen capability leaves it reading. A kill stops it: it says why, and waits for ``restart`` on its standard input,
which makes a fresh run. Without a live lease it waits, and goes on by itself when the service is back.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from haltline import ConfigurationError, Halt, InvalidTarget, Killed, KillSwitch, Run, Unverified
from sample.campaign import Campaign
from sample.crew import Assignment
from sample.desk import Desk
from sample.mailer import Mailer
from sample.recipients import read_recipients
from sample.reports import Report, State

_LOOK_S: Final = 0.25
"""How often a worker without a lease looks whether it was told to end, seconds."""


class Worker:
    """One worker, from its first run to its end.

    Args:
        assignment: what it does.
        campaign: how far it has come.
        mailer: its connection to the mail server.
        rate: mails a second at most.
    """

    def __init__(self, assignment: Assignment, campaign: Campaign, mailer: Mailer, *, rate: float) -> None:
        self._assignment = assignment
        self._campaign = campaign
        self._mailer = mailer
        self._gap_s = 1 / rate
        self._entered = 0
        self._desk = Desk(self._describe)

    def work(self, switch: KillSwitch) -> None:
        """Work until told to end; each time round is a fresh run, and only an order starts another."""
        desk = self._desk
        desk.report(State.STARTING)
        while not desk.told_to_end():
            try:
                with switch.run(
                    self._assignment.run, tenant=self._assignment.tenant, feature=self._assignment.feature
                ) as run:
                    self._entered += 1
                    self._go_through(run)
            except Killed as halt:
                self._mailer.close()
                desk.drop_orders()
                desk.report(State.STOPPED, _why(halt))
                if not desk.wait_for_restart():
                    break
            except Unverified as halt:  # the run could not be entered: there was no lease yet
                desk.report(State.UNVERIFIED, _why(halt))
                while not desk.told_to_end() and not switch.ensure(_LOOK_S):
                    pass
        self._mailer.close()
        desk.report(State.ENDED, "told to end")

    def _go_through(self, run: Run) -> None:
        """Step through the campaign in one run until it is killed or the worker is told to end."""
        due = time.monotonic()
        while not self._desk.told_to_end():
            try:
                why = self._campaign.step(run)
            except Unverified as halt:
                self._mailer.close()
                self._desk.report(State.UNVERIFIED, _why(halt))
                self._wait(run)
                due = time.monotonic()
                continue
            self._desk.report(State.FROZEN if why else State.SENDING, why)
            due = max(due + self._gap_s, time.monotonic() - 1.0)  # a delay is caught up, but not more than a second
            self._desk.pause(due - time.monotonic())

    def _wait(self, run: Run) -> None:
        """Wait between two steps, with the run's state kept, until it may go on or the worker is told to end."""
        while not self._desk.told_to_end():
            try:
                run.wait(timeout=_LOOK_S)
            except Unverified:
                continue
            return

    def _describe(self, state: State, why: str) -> Report:
        done = self._campaign
        return Report(
            self._assignment.run,
            state,
            entered=self._entered,
            read=done.read,
            sent=done.sent,
            unsent=done.unsent,
            failed=done.failed,
            why=why,
        )


def _why(halt: Halt) -> str:
    """Return why a run stopped, in one line: who killed what and for which reason, or what is not proven."""
    stop = halt.verdict
    if stop.holds:
        return "; ".join(f"{hold.target} killed by {hold.actor}: {hold.reason}" for hold in stop.holds)
    return f"{stop.reason.value}: {stop.detail}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one worker; return its exit status: 0 when told to end, 2 for wrong arguments or settings."""
    parser = argparse.ArgumentParser(prog="python -m sample.worker", description="One worker of the sample fleet.")
    for name in ("worker", "run", "tenant", "feature"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--contacts", required=True, type=Path, help="the file of recipients")
    parser.add_argument("--smtp-port", required=True, type=int, help="the mail server's port on 127.0.0.1")
    parser.add_argument("--rate", default=100.0, type=float, help="mails a second at most (default 100)")
    given = parser.parse_args(arguments)
    if not 0 < given.rate <= 10_000:
        parser.error("--rate must be above 0 and at most 10000")
    assignment = Assignment(given.worker, given.run, given.tenant, given.feature)
    mailer = Mailer(given.smtp_port)
    campaign = Campaign(assignment, read_recipients(given.contacts), mailer)
    worker = Worker(assignment, campaign, mailer, rate=given.rate)
    try:
        with KillSwitch(worker=assignment.worker) as switch:
            worker.work(switch)
    except (ConfigurationError, Halt, InvalidTarget, OSError, ValueError) as error:
        print(f"worker {assignment.worker}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
