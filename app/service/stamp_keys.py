"""Stamp keys: what workers seal planned work with, and know it again by, without asking anybody.

The secrets are in the database, so that all nodes give out the same keys. What a worker gets is derived from them for
the view of its token: whoever is bound to a tenant can neither make nor read a stamp of another view. The newest secret
is a day old at most; each is given out for as long as a stamp of it may be redeemed.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from typing import Any, Final

import structlog

from app.service.clocks import Clocks
from app.service.frames import View
from app.service.refresher import MEMORY_S
from app.service.store import LogDiverged, OutcomeUnknown, StampSecret, Store, StoreUnavailable
from haltline.canonical import canonical

ROTATE_S: Final = 86_400.0
"""How old the newest secret may be, seconds."""

LIFE_S: Final = MEMORY_S + 2 * ROTATE_S
"""For how long a secret's keys are given out, seconds: the age beyond which planned work is refused anyway, and a day
for a rotation that comes late."""

KEPT: Final = int(LIFE_S / ROTATE_S) + 1
"""How many secrets the database keeps."""

AGAIN_S: Final = 1.0
"""How soon to read them again for a request after they could not be read, seconds."""

VIEWS: Final = 1_024
"""For how many views the text of the keys is kept."""

_LABEL: Final = b"haltline stamp key 1\n"

_log: Final[Any] = structlog.get_logger(__name__)


def new_secret(made_at: float) -> StampSecret:
    """Return a fresh secret.

    Args:
        made_at: now, seconds since the Unix epoch.
    """
    return StampSecret(secrets.token_hex(6), secrets.token_bytes(32), made_at)


def stamp_key(secret: bytes, view: View) -> bytes:
    """Return the key of one view.

    Args:
        secret: what the keys of all views are derived from.
        view: the tenants that a token is bound to, sorted; None for a token that sees everything.
    """
    return hmac.digest(secret, _LABEL + canonical(None if view is None else list(view)), "sha256")


class _Known:
    """Secrets as they were read, and the text of the keys for each view that asked."""

    def __init__(self, listed: tuple[StampSecret, ...]) -> None:
        self.listed = listed
        self.texts: dict[View, bytes] = {}


class StampKeys:
    """The stamp keys that one node gives out."""

    def __init__(self, store: Store, clocks: Clocks) -> None:
        """Set up; nothing is read yet."""
        self._store = store
        self._clocks = clocks
        self._looking = threading.Lock()
        self._known: _Known | None = None
        self._again_at = 0.0
        self._failing = False

    @property
    def age_s(self) -> float | None:
        """How old the newest secret is, seconds; None where none is known."""
        known = self._known
        return None if known is None or not known.listed else self._clocks.wall() - known.listed[0].made_at

    def text(self, view: View) -> bytes | None:
        """Return the keys of a view as JSON, the newest first; None where they are not known. It reads nothing.

        Each hand-over of a stream asks for it: the text is made once for a view, and again when the keys change.
        """
        known = self._known
        if known is None:
            return None
        text = known.texts.get(view)
        if text is None:
            text = _text(known.listed, view)
            if len(known.texts) < VIEWS:
                known.texts[view] = text
        return text

    def ensure(self) -> None:
        """Read the secrets if nothing was read yet; who asks meanwhile waits for that one read."""
        if self._missing():
            with self._looking:
                if self._missing():
                    self._look()

    def look(self) -> None:
        """Read the secrets again, if anybody wants them here, and have a new one made when it is time."""
        if self._known is None:
            return  # a control lane gives out no keys
        with self._looking:
            self._look()

    def _missing(self) -> bool:
        return self._known is None and self._clocks.monotonic() >= self._again_at

    def _look(self) -> None:
        try:
            self._take(self._store.stamp_secrets())
        except (StoreUnavailable, OutcomeUnknown, LogDiverged) as error:
            # Leases do not depend on it: a worker keeps the keys that it has, and plans nothing if it has none.
            if not self._failing:
                _log.warning("stamp_keys_unreadable", detail=str(error))
            self._failing, self._again_at = True, self._clocks.monotonic() + AGAIN_S
        else:
            self._failing = False

    def _take(self, found: Sequence[StampSecret]) -> None:
        now = self._clocks.wall()
        if found:
            self._show(found, now)
            if found[0].made_at + ROTATE_S > now:
                return
        # All nodes come here at about the same time; the database says whose secret it is.
        mine = new_secret(now)
        found = self._store.add_stamp_secret(mine, after=found[0].id if found else None, keep=KEPT)
        self._show(found, now)
        if found[0] == mine:
            _log.info("stamp_secret_made", id=mine.id)

    def _show(self, found: Sequence[StampSecret], now: float) -> None:
        listed = tuple(each for each in found if each.made_at + LIFE_S > now)
        if self._known is None or self._known.listed != listed:
            self._known = _Known(listed)


def _text(listed: Sequence[StampSecret], view: View) -> bytes:
    keys = [
        {
            "id": each.id,
            "key": urlsafe_b64encode(stamp_key(each.secret, view)).rstrip(b"=").decode(),
            "until": int(each.made_at + LIFE_S),
        }
        for each in listed
    ]
    return json.dumps(keys, separators=(",", ":")).encode()
