"""Pieces: the body of a reply that is made while it is sent, and that holds one of the places there are for such."""

from __future__ import annotations

from collections.abc import Iterator

from app.service.places import Places


class Pieces:
    """The pieces of one reply; gives its place back when the reply is closed, be it sent whole or not at all.

    The first piece is made at once, before a status is sent: what fails until then is still answered with a problem.
    """

    def __init__(self, places: Places, pieces: Iterator[bytes]) -> None:
        """Take over a place.

        Args:
            places: where the place was taken; whoever took it gives it back itself if this raises.
            pieces: makes them.
        """
        self._first = next(pieces, b"")
        self._rest = pieces
        self._places: Places | None = places

    def __iter__(self) -> Iterator[bytes]:
        """Yield them all."""
        # An error in here reaches the server after the headers were sent: it breaks the connection off, so that a
        # broken reply can never look like a whole one.
        yield self._first
        yield from self._rest

    def close(self) -> None:
        """Give the place back, once."""
        places, self._places = self._places, None
        if places is not None:
            places.leave()
