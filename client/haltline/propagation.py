"""How a run gets into the headers of a call and the environment of a process, and out again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from haltline import baggage
from haltline.carried import Carried
from haltline.current import current_run
from haltline.errors import InvalidCarrier, Unverified
from haltline.run import Run
from haltline.verdict import Reason, Stop

VARIABLE: Final = "HALTLINE_RUN"
"""The environment variable that carries a run to a subprocess: ``str(run.carried)``."""

_WSGI: Final = "HTTP_BAGGAGE"
_NOTHING: Final = Stop(
    Reason.NO_RUN,
    detail=f"nothing here names a run: no baggage header with a {baggage.KEY!r} member, and no {VARIABLE}",
)


class HasItems(Protocol):
    """Headers as most libraries keep them: what ``items()`` yields may have a name more than once."""

    def items(self) -> Iterable[tuple[str, str]]:
        """Return names and values."""


Headers: TypeAlias = Mapping[str, Any] | HasItems | Iterable[tuple[str | bytes, str | bytes]]
"""Headers of a call: a mapping, or pairs as in an ASGI scope. Also a WSGI environ, or the environment of a process."""

H = TypeVar("H", bound=MutableMapping[str, str])


def inject(headers: H, *, run: Run | None = None) -> H:
    """Put a run into the headers of a call that its receiver makes for it, and return them.

    The run is the member ``haltline`` of the W3C header ``baggage``; other members stay.

    Args:
        headers: the headers, which are changed.
        run: the run; by default the current one.

    Raises:
        Unverified: no run is current here, or it was never armed.
        InvalidCarrier: there is so much other baggage that the run might be dropped on the way.
    """
    carried = (current_run() if run is None else run).carried
    values, named = [], []
    for name, value in headers.items():
        if name.lower() == baggage.HEADER:
            values.append(value)
            named.append(name)
    value = baggage.merged(values, carried)
    for name in named:
        with suppress(KeyError):  # two spellings of one name, in a mapping to which they are the same
            del headers[name]
    headers[named[0] if named else baggage.HEADER] = value
    return headers


def extract(headers: Headers) -> Carried | None:
    """Return the run that the headers of a call carry; None where they carry none.

    Args:
        headers: the headers: a mapping or pairs, of text or bytes; also a WSGI environ. Case does not matter, and there
            may be several ``baggage`` headers.

    Raises:
        InvalidCarrier: they carry one that is malformed, cut short, too deep or too long, or two that differ.
    """
    values = []
    for name, value in _pairs(headers):
        if _named(_text(name)):
            if not isinstance(value, str | bytes):
                raise InvalidCarrier(f"the baggage header is no text, but of type {type(value).__name__}")
            values.append(_text(value))
    return baggage.found(values)


def carried_by(carrier: Carried | Headers) -> Carried:
    """Return the run that is carried: by headers, or else by HALTLINE_RUN in an environment.

    Raises:
        InvalidCarrier: it is malformed.
        Unverified: no run is carried, which means stopped.
    """
    if isinstance(carrier, Carried):
        return carrier
    pairs = list(_pairs(carrier))
    carried = extract(pairs)
    if carried is not None:
        return carried
    for name, value in pairs:
        if name == VARIABLE:
            return Carried.parse(value)
    raise Unverified(f"stopped: {_NOTHING.detail}", verdict=_NOTHING)


def _named(name: str) -> bool:
    return name.lower() == baggage.HEADER or name == _WSGI


def _pairs(headers: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(headers, str | bytes):
        raise TypeError("these are not headers: for a run as text use Carried.parse(text)")
    items = getattr(headers, "items", None)
    pairs: Iterable[tuple[Any, Any]] = items() if callable(items) else headers
    return pairs


def _text(value: object) -> str:
    """Return a header's name or value as text; of what is neither text nor bytes, none."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else ""
