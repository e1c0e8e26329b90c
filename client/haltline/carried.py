"""A run as it travels between processes: its place in the tree, and the log position from which kills count."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from haltline.canonical import MAX_INTEGER
from haltline.errors import InvalidCarrier, InvalidTarget
from haltline.lineage import Lineage

TEXT_MAX: Final = 4000
"""The longest text, characters: some propagators drop a baggage member of more than 4096 without a word."""

# Slashes stand between the parts, since no id has one. The end is marked: a text that was cut short anywhere is
# malformed, and never the text of another run.
_SHAPE: Final = re.compile(r"1/([0-9a-f]{16})/([0-9]{1,16})/([^/]*)/([^/]*)/(.+)~", re.ASCII)


@dataclass(frozen=True, slots=True)
class Carried:
    """A run that is taken to another process, to be joined there by :meth:`haltline.KillSwitch.join`.

    It proves nothing: whoever may write it may name any run. Take it from where you would take a trace id of your own
    fleet, not from a stranger's request.

    Attributes:
        lineage: the run's place in the tree.
        epoch: the random name of the log that ``armed_seq`` is a position of.
        armed_seq: the log position at which the run was armed; a kill after it halts the run.
    """

    lineage: Lineage
    epoch: str
    armed_seq: int

    @property
    def text(self) -> str:
        """The run as one word of ASCII: ``1/<epoch>/<armed_seq>/<tenant>/<feature>/<root>/.../<self>~``.

        Tenant and feature are empty where there is none. An id that begins with its parent's id and a dot is written
        from the dot on.

        Raises:
            InvalidCarrier: it would be longer than :data:`TEXT_MAX`.
        """
        lineage = self.lineage
        parts, above = [], ""
        for each in lineage.ids:
            parts.append(each.removeprefix(above) if above and each.startswith(f"{above}.") else each)
            above = each
        head = f"1/{self.epoch}/{self.armed_seq}/{lineage.tenant or ''}/{lineage.feature or ''}"
        text = f"{head}/{'/'.join(parts)}~"
        if len(text) > TEXT_MAX:
            raise InvalidCarrier(
                f"run {lineage.id} takes {len(text)} characters to carry, at most {TEXT_MAX} travel safely: use "
                f"shorter ids, or the ids that run.child(...) makes"
            )
        return text

    def __str__(self) -> str:
        """Return the text."""
        return self.text

    @classmethod
    def parse(cls, text: object) -> Carried:
        """Return the run that ``text`` names.

        Raises:
            InvalidCarrier: it is malformed, cut short, newer than this client, too long or too deep, or a run in it
                stands above itself.
        """
        if not isinstance(text, str) or len(text) > TEXT_MAX:
            raise InvalidCarrier(f"a carried run is a text of at most {TEXT_MAX} characters: {_shown(text)} is not")
        shape = _SHAPE.fullmatch(text)
        if shape is None:
            raise InvalidCarrier(f"{_shown(text)} is not a carried run: malformed, cut short, or of a newer client")
        epoch, seq, tenant, feature, places = shape.groups()
        ids: list[str] = []
        for place in places.split("/"):
            ids.append(f"{ids[-1]}{place}" if ids and place.startswith(".") else place)
        carried = cls(Lineage(tuple(ids), tenant or None, feature or None), epoch, int(seq))
        try:
            carried.lineage.path()
        except InvalidTarget as error:
            raise InvalidCarrier(f"a carried run is not valid: {error}") from None
        # One run has one text: what is not written as we write it was not written by us.
        if carried.armed_seq > MAX_INTEGER or carried.text != text:
            raise InvalidCarrier(f"{_shown(text)} is not a carried run: malformed")
        return carried


def _shown(text: object) -> str:
    """A bounded, printable form of a rejected value."""
    return ascii(text[:80]) if isinstance(text, str) else f"a {type(text).__name__}"
