"""The crew: which worker does which run, for which tenant and feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one worker process does.

    Attributes:
        worker: the name it goes by in reports and mail headers.
        run: its run's id.
        tenant: whose campaign it is.
        feature: the feature that the campaign belongs to.
    """

    worker: str
    run: str
    tenant: str
    feature: str


READ: Final = "read_contacts"
"""The capability a worker asks for before it reads a recipient."""

SEND: Final = "send_email"
"""The capability a worker asks for before it sends a mail."""

CREW: Final = (
    Assignment("w-1", "r-1", "acme", "outreach"),
    Assignment("w-2", "r-2", "acme", "outreach"),
    Assignment("w-3", "r-3", "globex", "outreach"),
)
"""Three workers: two of one tenant, so that a run, a tenant and the whole fleet are three different things."""
