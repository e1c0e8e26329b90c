"""Log entries and the hash chain: what a kill, a revive and a note are, and how one follows another.

An entry's hash is the SHA-256 of its canonical JSON without the member ``hash``; its ``prev_hash`` is the hash of the
entry before it, 64 zeros for the first. Anybody can verify a log in ten lines (docs/verify.md). The hash covers every
member, so that later versions can add members without breaking old verifiers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from haltline.canonical import MAX_INTEGER, canonical
from haltline.errors import ChainBroken, InvalidDocument, InvalidEntry, InvalidTarget
from haltline.scopes import Target, check_id, check_namespace, parse_target

VERSION: Final = 1
"""The newest entry version that this reader understands; a newer one means stopped."""

GENESIS_HASH: Final = "0" * 64
"""The ``prev_hash`` of the first entry."""

InFlight: TypeAlias = Literal["abort", "finish"]
Queued: TypeAlias = Literal["discard", "drain"]

_HASH: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_EPOCH: Final = re.compile(r"[0-9a-f]{16}", re.ASCII)
_AT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in one log: how far it was read, and the hash that proves which log it was.

    Attributes:
        seq: the sequence number of the last entry read; 0 before the first.
        hash: that entry's hash; 64 zeros before the first.
    """

    seq: int = 0
    hash: str = GENESIS_HASH


@dataclass(frozen=True, slots=True)
class Kill:
    """An entry that put a hold on a target. The hold's id is the entry's ``seq``."""

    position: Position
    prev_hash: str
    at: str
    actor: str
    flip_id: str
    target: Target
    reason: str
    in_flight: InFlight
    queued: Queued


@dataclass(frozen=True, slots=True)
class Revive:
    """An entry that released holds, named by the ``seq`` of the kills that made them."""

    position: Position
    prev_hash: str
    at: str
    actor: str
    flip_id: str
    target: Target
    reason: str
    holds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """Any other entry: it shares ``seq``, chain and export, and never changes the fold."""

    position: Position
    prev_hash: str
    at: str
    actor: str
    topic: str


@dataclass(frozen=True, slots=True)
class Stub:
    """What a reader gets of an entry that is not its business: its place in the chain, nothing else."""

    position: Position


Entry: TypeAlias = Kill | Revive | Note


def entry_hash(members: Mapping[str, Any]) -> str:
    """Return the hash of an entry: SHA-256, lower-case hex, of its canonical JSON without ``hash``.

    Raises:
        InvalidDocument: a member has no canonical form.
    """
    return hashlib.sha256(canonical({name: members[name] for name in members if name != "hash"})).hexdigest()


def seal(members: Mapping[str, Any], *, after: Position) -> dict[str, Any]:
    """Return ``members`` as the entry that follows ``after``: with ``seq``, ``prev_hash`` and ``hash`` set.

    Raises:
        InvalidDocument: a member has no canonical form.
    """
    sealed = {**members, "seq": after.seq + 1, "prev_hash": after.hash}
    sealed.pop("hash", None)
    sealed["hash"] = entry_hash(sealed)
    return sealed


def is_hash(value: object) -> bool:
    """Return whether ``value`` is a lower-case hexadecimal SHA-256."""
    return type(value) is str and _HASH.fullmatch(value) is not None


def is_epoch(value: object) -> bool:
    """Return whether ``value`` is an epoch: 16 lower-case hexadecimal digits."""
    return type(value) is str and _EPOCH.fullmatch(value) is not None


def is_moment(value: object) -> bool:
    """Return whether ``value`` is a time stamp of the log: RFC 3339, UTC, six fraction digits, ``Z``."""
    return type(value) is str and _AT.fullmatch(value) is not None


def _text(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    if type(value) is not str or not value:
        raise InvalidEntry(f"entry {_where(members)}: {name} is missing or not text")
    return value


def _where(members: Mapping[str, Any]) -> str:
    seq = members.get("seq")
    return str(seq) if _seq(seq) else "of no known seq"


def _seq(value: object) -> bool:
    return type(value) is int and 1 <= value <= MAX_INTEGER


def parse_stub(members: Mapping[str, Any]) -> Stub:
    """Return the stub ``{seq, hash}``.

    Raises:
        InvalidEntry: it is not exactly that.
    """
    if set(members) != {"seq", "hash"} or not _seq(members["seq"]) or not is_hash(members["hash"]):
        raise InvalidEntry(f"entry {_where(members)}: not a stub of seq and hash")
    return Stub(Position(members["seq"], members["hash"]))


def parse_entry(members: object, *, namespace: str | None = None, epoch: str | None = None) -> Entry:
    """Return the entry of a JSON object, its shape and its own hash verified.

    Args:
        members: the object, as parsed.
        namespace: the namespace it must name, where the caller knows it.
        epoch: the epoch it must name, where the caller knows it.

    Raises:
        InvalidEntry: members are missing or of the wrong shape, the kind is unknown, ``v`` is newer than
            :data:`VERSION`, it belongs to another log, or its hash is not its own.
        InvalidDocument: a member has no canonical form.
    """
    if not isinstance(members, dict):
        raise InvalidEntry("an entry is a JSON object")
    version = members.get("v")
    if type(version) is not int or version < 1:
        raise InvalidEntry(f"entry {_where(members)}: v is missing")
    if version > VERSION:
        raise InvalidEntry(f"entry {_where(members)}: v {version} is newer than this reader's {VERSION}: update it")
    if not _seq(members.get("seq")) or not is_hash(members.get("hash")) or not is_hash(members.get("prev_hash")):
        raise InvalidEntry(f"entry {_where(members)}: seq, hash or prev_hash is missing or malformed")
    if not is_moment(members.get("at")) or not is_epoch(members.get("epoch")):
        raise InvalidEntry(f"entry {_where(members)}: at or epoch is missing or malformed")
    try:
        check_namespace(members.get("namespace"))
        actor = check_id(members.get("actor"), "actor")
    except InvalidTarget as error:
        raise InvalidEntry(f"entry {_where(members)}: {error}") from None
    if namespace is not None and members["namespace"] != namespace:
        raise InvalidEntry(f"entry {_where(members)}: of namespace {members['namespace']}, not {namespace}")
    if epoch is not None and members["epoch"] != epoch:
        raise InvalidEntry(f"entry {_where(members)}: of epoch {members['epoch']}, not {epoch}")
    if entry_hash(members) != members["hash"]:
        raise InvalidEntry(f"entry {_where(members)}: its hash is not the hash of its members: it was altered")
    return _by_kind(members, Position(members["seq"], members["hash"]), actor)


def _by_kind(members: Mapping[str, Any], position: Position, actor: str) -> Entry:
    kind, prev_hash, at = members.get("kind"), members["prev_hash"], members["at"]
    if kind == "note":
        return Note(position, prev_hash, at, actor, _text(members, "topic"))
    if kind not in ("kill", "revive"):
        raise InvalidEntry(f"entry {position.seq}: kind {kind!r:.40} is unknown to this reader: update it")
    try:
        target = parse_target(members.get("target"))
        flip_id = check_id(members.get("flip_id"), "flip_id")
    except InvalidTarget as error:
        raise InvalidEntry(f"entry {position.seq}: {error}") from None
    reason = _text(members, "reason")
    if kind == "kill":
        in_flight, queued = members.get("in_flight"), members.get("queued")
        if in_flight not in ("abort", "finish") or queued not in ("discard", "drain"):
            raise InvalidEntry(f"entry {position.seq}: in_flight or queued is missing or unknown")
        return Kill(position, prev_hash, at, actor, flip_id, target, reason, in_flight, queued)
    holds = members.get("holds")
    if type(holds) is not list or not holds or not all(_seq(hold) for hold in holds):
        raise InvalidEntry(f"entry {position.seq}: holds is not a list of the kills' seq")
    if sorted(set(holds)) != holds or holds[-1] >= position.seq:
        raise InvalidEntry(f"entry {position.seq}: holds are not ascending, or not older than the revive")
    return Revive(position, prev_hash, at, actor, flip_id, target, reason, tuple(holds))


def follow(entries: Iterable[Mapping[str, Any]], *, after: Position) -> Iterator[Entry]:
    """Yield the parsed entries of one log, proving that each follows the one before.

    Args:
        entries: the entries as JSON objects, in order.
        after: the position that the first one must continue.

    Raises:
        ChainBroken: an entry is missing, doubled, out of order, altered, or of another log.
    """
    namespace = epoch = None
    for members in entries:
        expected = after.seq + 1
        try:
            entry = parse_entry(members, namespace=namespace, epoch=epoch)
        except InvalidDocument as error:  # InvalidEntry, and a member that has no canonical form
            raise ChainBroken(f"at position {expected}: {error}", seq=expected) from error
        if entry.position.seq != expected:
            raise ChainBroken(f"entry {expected} should come next, but it is {entry.position.seq}", seq=expected)
        if entry.prev_hash != after.hash:
            raise ChainBroken(
                f"entry {expected} does not follow entry {after.seq}: its prev_hash is not that entry's hash",
                seq=expected,
            )
        namespace, epoch = members["namespace"], members["epoch"]
        after = entry.position
        yield entry
