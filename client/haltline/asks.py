"""What a client asks for leases with, and what it tells of how far it has applied the log."""

from __future__ import annotations

from dataclasses import dataclass

from haltline.canonical import canonical
from haltline.flips import Position
from haltline.lease import Readings
from haltline.replica import Replica


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks.

    Attributes:
        worker: the process's name in reports, a valid id.
        instance: a random id of this very process; another after a fork.
        namespace: the namespace that the token is of.
    """

    worker: str
    instance: str
    namespace: str


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for frames: what it carries, and when it was begun.

    Attributes:
        nonce: a random text that the first frame must repeat.
        t0: the clocks before the first byte was sent, connecting included.
        position: the position that the request states, which is also the worker's ack.
        stream: whether it asks for a stream of frames; else for one.
        body: the request's body.
    """

    nonce: str
    t0: Readings
    position: Position
    stream: bool
    body: bytes


def ask_body(identity: Identity, replica: Replica, *, nonce: str, stream: bool) -> bytes:
    """Return the body of a lease request.

    Args:
        identity: who asks.
        replica: what is known.
        nonce: a fresh random text.
        stream: whether to ask for a stream of frames.
    """
    known = replica.position.seq > 0
    return canonical(
        {
            "stream": stream,
            "nonce": nonce,
            "worker": identity.worker,
            "instance": identity.instance,
            "namespace": identity.namespace,
            "epoch": replica.epoch if known else None,
            "seq": replica.position.seq,
            "hash": replica.position.hash if known else None,
        }
    )


def ack_body(identity: Identity, replica: Replica) -> bytes:
    """Return the body of an ack.

    Args:
        identity: who tells.
        replica: what was applied; not nothing.
    """
    return canonical(
        {
            "worker": identity.worker,
            "instance": identity.instance,
            "namespace": identity.namespace,
            "epoch": replica.epoch,
            "seq": replica.position.seq,
            "hash": replica.position.hash,
        }
    )
