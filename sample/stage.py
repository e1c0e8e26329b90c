"""The stage that run and demo share: the service, the mail server and the fleet, begun in order and ended in order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from sample.api import Api
from sample.crew import CREW, Assignment
from sample.fleet import Equipment, Fleet
from sample.folder import Folder
from sample.observer import Observer
from sample.reports import Report
from sample.sink import Sink
from sample.troubles import Trouble
from sample.watch import Watch


class Service(Protocol):
    """The service: one process on SQLite, or many on PostgreSQL."""

    ttl_ms: int
    admin_token: str

    @property
    def url(self) -> str:
        """Return where operators ask; several addresses are separated by commas."""

    @property
    def workers_url(self) -> str:
        """Return where workers ask; several addresses are separated by commas."""

    @property
    def control_ports(self) -> Sequence[int]:
        """Return where operators are answered, on 127.0.0.1."""

    @property
    def pids(self) -> Sequence[int]:
        """Return the process ids of what serves."""

    @property
    def gone(self) -> str:
        """Return why a process is no more, in one line; an empty text while all run."""

    def describe(self) -> list[str]:
        """Return what there is, a line each."""

    def start(self) -> None:
        """Start what does not run, and wait until it is ready, or raise Trouble."""

    def stop(self) -> int:
        """Stop it with SIGTERM and return when it was gone, monotonic nanoseconds."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What is there while the sample runs.

    Attributes:
        folder: the data folder.
        service: the service.
        api: its API, with the admin token.
        sink: the mail server.
        observer: sees each mail that the mail server accepts.
        fleet: the workers.
        watch: told of each mail and each report.
    """

    folder: Folder
    service: Service
    api: Api
    sink: Sink
    observer: Observer
    fleet: Fleet
    watch: Watch

    def look_after(self) -> None:
        """Do nothing as long as everything runs.

        Raises:
            Trouble: the service or a worker ended by itself.
        """
        gone = self.service.gone or self.fleet.gone()
        if gone:
            raise Trouble(gone)

    def gone(self) -> bool:
        """Return whether the service or a worker ended by itself."""
        return bool(self.service.gone or self.fleet.gone())


@contextlib.contextmanager
def set_up(
    folder: Folder,
    service: AbstractContextManager[Service],
    *,
    rate: float,
    keep_mail: bool,
    on_change: Callable[[Assignment, Report], None],
) -> Iterator[Stage]:
    """Begin everything, and end it in the other direction whatever happens.

    Args:
        folder: the data folder.
        service: the service, not yet started.
        rate: mails a second and worker at most.
        keep_mail: whether each mail is kept as a file in the data folder.
        on_change: called from another thread when a worker's state changes.

    Raises:
        Trouble: something could not be begun.
    """
    watch = Watch()
    observer = Observer(watch)
    contacts = folder.contacts(CREW)
    sink = Sink(observer, folder=folder.mail_folder() if keep_mail else None)
    with sink, service as serving:
        folder.write_config(folder.config.name, serving.url, serving.admin_token)
        api = Api(serving.control_ports, serving.admin_token)
        with contextlib.ExitStack() as tokens:
            texts: dict[str, str] = {}
            for assignment in CREW:
                token_id, texts[assignment.run] = api.issue(assignment.worker, "worker", tenants=[assignment.tenant])
                tokens.callback(_revoke, api, token_id)
            equipment = Equipment(serving.workers_url, texts, contacts, sink.port, rate)
            with Fleet(CREW, equipment, watch=watch, on_change=on_change) as fleet:
                yield Stage(folder, serving, api, sink, observer, fleet, watch)


def _revoke(api: Api, token_id: str) -> None:
    """Revoke a worker's token, which nobody needs any more; where the service is gone, its expiry will do."""
    with contextlib.suppress(Trouble):
        api.revoke(token_id)
