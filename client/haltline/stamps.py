"""Stamps: a small text that says what was planned, and at which log position, and that nobody else can make.

    hs1.<payload>.<mac>      both base64url without padding; the mac is HMAC-SHA256 over everything before its dot

The payload is a JSON object. The keys come from the service with a process's first frame, so that making and opening a
stamp needs no call. Whoever holds a stamp has no more permission than the log gives to work planned at its position.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from haltline.canonical import canonical, parse
from haltline.errors import InvalidDocument, InvalidTarget, StampRefused
from haltline.flips import is_epoch
from haltline.lineage import Lineage
from haltline.scopes import check_capability, check_namespace
from haltline.verdict import Refusal

if TYPE_CHECKING:
    from haltline.keys import StampKey

PLAN_MAX_AGE_S: Final = 30 * 86_400
"""The age beyond which a stamp is refused, seconds: barriers older than that may be forgotten."""

STAMP_MAX: Final = 8_192
"""The longest stamp, characters: what a run 32 deep with the longest ids needs."""

HASH_MAX: Final = 255
"""The longest hash of a payload, characters."""

_PREFIX: Final = "hs1"
_REQUIRED: Final = frozenset({"namespace", "epoch", "seq", "made_at", "runs", "capability", "key"})
_OPTIONAL: Final = frozenset({"tenant", "feature", "hash"})


@dataclass(frozen=True, slots=True)
class Stamp:
    """What was planned, and when.

    Attributes:
        namespace: the log's namespace.
        epoch: the log's epoch.
        seq: the log position at which it was planned; a discarding kill on its path after that voids it for ever.
        made_at: when, epoch seconds; only its age is judged by it.
        lineage: the run that planned it, and for whom.
        capability: the capability that it will use; None only for a timer, whose stamp never leaves the process.
        payload_hash: the hash of what is to be done, as the planner gave it, if it did.
        key_id: the stamp key that it is sealed with; empty where it is not.
    """

    namespace: str
    epoch: str
    seq: int
    made_at: int
    lineage: Lineage
    capability: str | None = None
    payload_hash: str | None = None
    key_id: str = ""


def check_payload_hash(text: object) -> str:
    """Return ``text`` if it can stand in a stamp: 1 to 255 printable ASCII characters without a space.

    Raises:
        ValueError: it is not.
    """
    if type(text) is not str or not 0 < len(text) <= HASH_MAX or not all("!" <= each <= "~" for each in text):
        raise ValueError("a payload's hash is 1 to 255 printable ASCII characters without a space")
    return text


def seal(stamp: Stamp, key: StampKey) -> str:
    """Return a stamp as text, sealed with ``key``.

    Raises:
        ValueError: it names no capability.
    """
    if stamp.capability is None:
        raise ValueError("a stamp that leaves the process names its capability")
    members: dict[str, Any] = {
        "namespace": stamp.namespace,
        "epoch": stamp.epoch,
        "seq": stamp.seq,
        "made_at": stamp.made_at,
        "runs": list(stamp.lineage.ids),
        "capability": stamp.capability,
        "key": key.id,
    }
    told = {"tenant": stamp.lineage.tenant, "feature": stamp.lineage.feature, "hash": stamp.payload_hash}
    members.update((name, value) for name, value in told.items() if value is not None)
    head = f"{_PREFIX}.{_encoded(canonical(members))}"
    return f"{head}.{_mac(head, key)}"


def open_stamp(text: object, keys: Iterable[StampKey], *, namespace: str, epoch: str) -> tuple[Stamp, StampKey]:
    """Return the stamp that a text is, and the key that it is sealed with.

    Args:
        text: what :func:`seal` returned.
        keys: the stamp keys of this process.
        namespace: the namespace of this process's log.
        epoch: its epoch.

    Raises:
        StampRefused: FORGED where it is no stamp, was altered, or its key is not known; FOREIGN where it is of another
            log.
    """
    if type(text) is not str or len(text) > STAMP_MAX or not text.isascii():
        raise _forged("it is not the text of a stamp")
    head, _, mac = text.rpartition(".")
    prefix, _, payload = head.partition(".")
    if prefix != _PREFIX:
        raise _forged("it is not the text of a stamp")
    members = _members(payload)
    key = next((each for each in keys if each.id == members["key"]), None)
    foreign = members["namespace"] != namespace or members["epoch"] != epoch
    if key is None and not foreign:
        raise _forged("it is sealed with a key that this process was not given")
    if key is not None and not hmac.compare_digest(mac, _mac(head, key)):
        raise _forged("it was altered, or made by somebody else")
    if key is None or foreign:
        # Without the key this is only what the text says of itself; either way it never runs here.
        raise StampRefused(
            "the stamp is refused (foreign): it is of another log, by namespace or epoch", reason=Refusal.FOREIGN
        )
    return _stamp(members), key


def _forged(why: str) -> StampRefused:
    return StampRefused(f"the stamp is refused (forged): {why}", reason=Refusal.FORGED)


def _mac(head: str, key: StampKey) -> str:
    return _encoded(hmac.digest(key.key, head.encode("ascii"), hashlib.sha256))


def _encoded(data: bytes) -> str:
    # binascii alone: base64 costs a millisecond of every import of this client.
    text = binascii.b2a_base64(data, newline=False).decode("ascii")
    return text.rstrip("=").replace("+", "-").replace("/", "_")


def _members(payload: str) -> Mapping[str, Any]:
    """Return the members of a payload; their values are not checked yet."""
    try:
        text = payload.replace("-", "+").replace("_", "/") + "=" * (-len(payload) % 4)
        data = binascii.a2b_base64(text, strict_mode=True)
        members = parse(data)
    except (binascii.Error, InvalidDocument):
        raise _forged("its payload cannot be read") from None
    if not isinstance(members, dict) or not _REQUIRED <= set(members) <= _REQUIRED | _OPTIONAL:
        raise _forged("its payload lacks a member, or has one too many")
    return members


def _stamp(members: Mapping[str, Any]) -> Stamp:
    """Return the stamp of a payload whose mac is right; malformed all the same where its maker was."""
    seq, made_at, runs = members["seq"], members["made_at"], members["runs"]
    shaped = type(seq) is int and seq >= 0 and type(made_at) is int and made_at >= 0 and isinstance(runs, list)
    if not shaped or not runs or not is_epoch(members["epoch"]):
        raise _forged("its payload is malformed")
    try:
        check_namespace(members["namespace"])
        lineage = Lineage(tuple(runs), members.get("tenant"), members.get("feature"))
        lineage.path()
        payload_hash = members.get("hash")
        return Stamp(
            members["namespace"],
            members["epoch"],
            seq,
            made_at,
            lineage,
            check_capability(members["capability"]),
            payload_hash if payload_hash is None else check_payload_hash(payload_hash),
            members["key"],
        )
    except (InvalidTarget, ValueError, TypeError):
        raise _forged("its payload is malformed") from None
