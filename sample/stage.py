"""The stage that run and demo share: the service, the mail server and the fleet, begun in order and ended in order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sample.api import Api
from sample.crew import CREW, Assignment
from sample.fleet import Equipment, Fleet
from sample.folder import Folder
from sample.observer import Observer
from sample.reports import Report
from sample.service import Service
from sample.sink import Sink
from sample.troubles import Trouble
from sample.watch import Watch


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
    folder: Folder, *, port: int, rate: float, keep_mail: bool, on_change: Callable[[Assignment, Report], None]
) -> Iterator[Stage]:
    """Begin everything, and end it in the other direction whatever happens.

    Args:
        folder: the data folder.
        port: the service's port on 127.0.0.1.
        rate: mails a second and worker at most.
        keep_mail: whether each mail is kept as a file in the data folder.
        on_change: called from another thread when a worker's state changes.

    Raises:
        Trouble: something could not be begun.
    """
    watch = Watch()
    observer = Observer(watch)
    contacts = folder.contacts(CREW)
    service = Service(folder, port=port)
    sink = Sink(observer, folder=folder.mail_folder() if keep_mail else None)
    with sink, service:
        folder.write_config(folder.config.name, service.url, service.admin_token)
        api = Api(port, service.admin_token)
        with contextlib.ExitStack() as tokens:
            texts: dict[str, str] = {}
            for assignment in CREW:
                token_id, texts[assignment.run] = api.issue(assignment.worker, "worker", tenants=[assignment.tenant])
                tokens.callback(_revoke, api, token_id)
            equipment = Equipment(service.url, texts, contacts, sink.port, rate)
            with Fleet(CREW, equipment, watch=watch, on_change=on_change) as fleet:
                yield Stage(folder, service, api, sink, observer, fleet, watch)


def _revoke(api: Api, token_id: str) -> None:
    """Revoke a worker's token, which nobody needs any more; where the service is gone, its expiry will do."""
    with contextlib.suppress(Trouble):
        api.revoke(token_id)
