"""Lineage: which run this is, below which others, and for whom it works."""

from __future__ import annotations

from dataclasses import dataclass

from haltline.errors import InvalidTarget
from haltline.scopes import Path, path


@dataclass(frozen=True, slots=True)
class Lineage:
    """A run's place in the tree.

    Attributes:
        ids: the ids of the runs from the root to the run itself, at least one.
        tenant: the tenant that it works for, if any.
        feature: the feature that it belongs to, if any.
    """

    ids: tuple[str, ...]
    tenant: str | None = None
    feature: str | None = None

    @property
    def id(self) -> str:
        """The run's own id."""
        return self.ids[-1]

    @property
    def ancestors(self) -> tuple[str, ...]:
        """The ids of the runs above it, from the root."""
        return self.ids[:-1]

    def path(self) -> Path:
        """Return the targets above its effects.

        Raises:
            InvalidTarget: an id is outside the grammar, a run stands above itself, or the path is too deep.
        """
        return path(self.id, tenant=self.tenant, feature=self.feature, ancestors=self.ancestors)

    def child(self, name: str, *, tenant: str | None = None, feature: str | None = None) -> Lineage:
        """Return the place of a child: its id is this run's, a dot and ``name``.

        Args:
            name: what tells it from its siblings.
            tenant: the tenant that the caller takes it to work for; None for this run's, whatever that is.
            feature: likewise the feature.

        Raises:
            InvalidTarget: the caller is wrong: a tree works for one tenant and belongs to one feature.
        """
        for word, given, ours in (("tenant", tenant, self.tenant), ("feature", feature, self.feature)):
            if given is not None and given != ours:
                raise InvalidTarget(
                    f"a child of run {self.id} cannot have the {word} {given!a:.60}: a child has its parent's, which "
                    f"is {'none' if ours is None else ours}; begin a run of its own with switch.run(...)"
                )
        return Lineage((*self.ids, f"{self.id}.{name}"), self.tenant, self.feature)
