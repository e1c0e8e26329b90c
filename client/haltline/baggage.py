"""The W3C ``baggage`` header: where a run travels beside other members, and how it is found again.

Pure. https://www.w3.org/TR/baggage/: members are separated by commas, ``key=value;property;...``, values are
percent-encoded. Other members are passed on as they came, whatever they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from haltline.carried import TEXT_MAX, Carried
from haltline.errors import InvalidCarrier

HEADER: Final = "baggage"
"""The header's name; case does not matter."""

KEY: Final = "haltline"
"""The key of the member that names the run; case does matter."""

BYTES_MAX: Final = 8192
"""What every party has to pass on, bytes; more may be dropped on the way."""

MEMBERS_MAX: Final = 64
"""How many members every party has to pass on."""

_WS: Final = " \t"
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def merged(values: Iterable[str], carried: Carried) -> str:
    """Return the header's value with the run in it, in place of any other.

    The run comes first: who cuts a header that is too long, cuts its end.

    Args:
        values: the values of the ``baggage`` headers so far.
        carried: the run.

    Raises:
        InvalidCarrier: the header would be so large that it may be dropped on the way, and the run with it.
    """
    others = [member for member in _members(values) if _key(member) != KEY]
    value = ",".join([f"{KEY}={carried.text}", *others])
    size = len(value.encode("utf-8", "surrogatepass"))
    if size > BYTES_MAX or len(others) >= MEMBERS_MAX:
        raise InvalidCarrier(
            f"with the run the baggage header has {len(others) + 1} members and {size} bytes; above {MEMBERS_MAX} or "
            f"{BYTES_MAX} it may be dropped on the way, and the run with it: send fewer other members"
        )
    return value


def found(values: Iterable[str]) -> Carried | None:
    """Return the run that the headers carry; None where no member has its key.

    Args:
        values: the values of the ``baggage`` headers, in their order.

    Raises:
        InvalidCarrier: a member has its key and is malformed, or two of them differ.
    """
    runs = {_value(member) for member in _members(values) if _key(member) == KEY}
    if len(runs) > 1:
        raise InvalidCarrier("the baggage carries two runs: which of them this call belongs to is not known")
    return Carried.parse(runs.pop()) if runs else None


def _members(values: Iterable[str]) -> list[str]:
    members = (member.strip(_WS) for value in values for member in value.split(","))
    return [member for member in members if member]


def _key(member: str) -> str:
    return member.partition(";")[0].partition("=")[0].strip(_WS)


def _value(member: str) -> str:
    text = member.partition(";")[0].partition("=")[2].strip(_WS)
    # A propagator on the way may have written %2F for each slash. Length is bounded first: decoding is not free.
    if len(text) > 3 * TEXT_MAX or _BAD_ESCAPE.search(text) is not None:
        raise InvalidCarrier(f"the baggage carries a run that is too long or badly encoded: {text[:80]!a}")
    # A byte for a byte: what is not ASCII is no carried run, and is refused as such.
    return _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), text)
