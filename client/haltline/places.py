"""Where the runs of one process stand: a run that is at work keeps its place in the tree."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakValueDictionary

from haltline.errors import InvalidTarget
from haltline.lineage import Lineage
from haltline.native import Condition, make_condition


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Place:
    """One run's place: a link to its parent's. It is taken for as long as somebody keeps this object."""

    id: str
    parent: Place | None
    tenant: str | None
    feature: str | None

    def __str__(self) -> str:
        """Return where it is, for an error message."""
        below = "at the root" if self.parent is None else f"below run {self.parent.id}"
        cohort = "".join(
            f", {word} {value}" for word, value in (("tenant", self.tenant), ("feature", self.feature)) if value
        )
        return f"{below}{cohort}"


class Places:
    """The places that are taken in one process, each by its run's id.

    Moving a run to another parent, or taking a child's id for a root of its own, would take it out of reach of the
    kills of its ancestors.
    """

    def __init__(self) -> None:
        self._taken: WeakValueDictionary[str, Place] = WeakValueDictionary()
        self._lock: Condition = make_condition()

    def take(self, lineage: Lineage) -> Place:
        """Return the place of a run; the run is there for as long as the object is kept.

        Raises:
            InvalidTarget: the run, or one above it, is at work in this process in another place.
        """
        place: Place | None = None
        with self._lock:
            for each in lineage.ids:
                wanted = Place(each, place, lineage.tenant, lineage.feature)
                place = self._taken.setdefault(each, wanted)
                if (place.parent, place.tenant, place.feature) != (wanted.parent, wanted.tenant, wanted.feature):
                    told = (
                        f"run {each} is at work in this process {place}; it cannot be {wanted} as well: a run keeps "
                        f"its place in the tree. Give this one an id of its own, or join the run where it is"
                    )
                    del place, wanted  # whoever keeps the error must not keep the place taken
                    raise InvalidTarget(told)
        if place is None:
            raise InvalidTarget("a run has an id")
        return place

    def begin_anew(self) -> None:
        """Take a lock of its own, in a forked child: the old one may be held by a thread that is not there."""
        self._lock = make_condition()
