"""The composition root: the one place that puts the parts of the service together."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

import structlog
from flask import Flask

from app.api.application import build
from app.api.auth import EXTENSION
from app.bus import open_doorbell
from app.config import Config
from app.domain.lanes import Lane
from app.domain.moments import moment
from app.service.acks import Acks
from app.service.chores import Chores
from app.service.clocks import Clocks, SystemClocks
from app.service.doorbell import BackgroundBell
from app.service.events import Events
from app.service.exports import Exports
from app.service.flips import Flips
from app.service.frames import Frames
from app.service.journal import configure
from app.service.lookups import AT_ONCE as UNKNOWN_AT_ONCE
from app.service.node import Node
from app.service.outcomes import Outcomes
from app.service.refresher import Refresher
from app.service.settings import Settings
from app.service.skew import Skew
from app.service.stamp_keys import StampKeys, new_secret
from app.service.store import Head, Store, StoreUnavailable
from app.service.streams import Streams
from app.service.tokens import Tokens
from app.service.turns import AT_ONCE, WAITING, Turns
from app.service.upkeep import Upkeep
from app.storage import open_store

LEISURE_S: Final = 0.01
"""How long a control lane waits before it reads a flip, seconds: nodes that have streams read it first."""


def open_log(store: Store, config: Config, clocks: Clocks) -> Head:
    """Return the head of the log of a store, making the log if there is none.

    Raises:
        LogDiverged: the database holds the log of another namespace.
        StoreUnavailable: it could not be read.
    """
    return store.open_log(
        namespace=config.namespace,
        ttl_ms=config.ttl_ms,
        at=moment(clocks.wall()),
        epoch=os.urandom(8).hex(),
        stamp_secret=new_secret(clocks.wall()),
    )


def create_node(config: Config, *, store: Store | None = None, clocks: Clocks | None = None) -> Node:
    """Return a node, not yet started.

    Args:
        config: how it runs.
        store: where its log is kept; None to open the one that the configuration names.
        clocks: what time it is; None for this machine's.

    Raises:
        StoreUnavailable: the database cannot be opened; the message says what to do.
        LogDiverged: the database holds the log of another namespace.
    """
    if not structlog.is_configured():  # structlog's default prints the local variables of a traceback
        configure(config.log_level)
    kept = store if store is not None else open_store(config.database_url, lane=config.lane)
    time_of = clocks if clocks is not None else SystemClocks()
    skew = Skew(kept, time_of)
    opened: Head | None = None
    with suppress(StoreUnavailable):  # the refresher goes on trying, and until then the node is not ready
        opened = open_log(kept, config, time_of)
        skew.measure()
    bell = BackgroundBell(open_doorbell(config.redis_url, config.namespace))
    tokens = Tokens(
        kept,
        time_of,
        namespace=config.namespace,
        embedded=config.embedded,
        ttl_ms=config.ttl_ms,
        places=UNKNOWN_AT_ONCE[config.lane],
        ring=bell.ring,
    )
    refresher = Refresher(
        kept,
        time_of,
        open_log=lambda: open_log(kept, config, time_of),
        forget_token=tokens.forget,
        use_ttl=tokens.use_ttl,
        opened=opened,
        leisure_s=LEISURE_S if config.lane is Lane.CONTROL else 0.0,
    )
    bell.listen(refresher.ring)
    stamp_keys, outcomes = StampKeys(kept, time_of), Outcomes(kept, time_of)
    frames = Frames(namespace=config.namespace, timebase=refresher.timebase)
    return Node(
        namespace=config.namespace,
        store=kept,
        clocks=time_of,
        tokens=tokens,
        flips=Flips(kept, time_of, skew, ring=bell.ring),
        refresher=refresher,
        frames=frames,
        skew=skew,
        settings=Settings(kept, time_of, skew, ring=bell.ring),
        exports=Exports(kept),
        events=Events(refresher, kept, time_of),
        streams=Streams(refresher, frames, time_of, revoked=tokens.revoked, limit=config.streams_max),
        acks=Acks(refresher, time_of),
        turns=Turns(AT_ONCE, waiting=WAITING),
        stamp_keys=stamp_keys,
        outcomes=outcomes,
        chores=Chores([stamp_keys.look, outcomes.sweep]),
        bell=bell,
        # Nobody flips at a worker lane: it has no need to know who may.
        upkeep=Upkeep(refresher, time_of, skew, learn=None if config.lane is Lane.WORKER else tokens.learn),
    )


def create_app(config: Config, *, store: Store | None = None, clocks: Clocks | None = None) -> Flask:
    """Return the application; its refresher starts with the first request that needs it, or by :func:`node_of`.

    Args:
        config: how it runs.
        store: where its log is kept; None to open the one that the configuration names.
        clocks: what time it is; None for this machine's.

    Raises:
        StoreUnavailable: the database could not be opened; the message says what to do.
    """
    return build(create_node(config, store=store, clocks=clocks), lane=config.lane)


def node_of(app: Flask) -> Node:
    """Return the node that an application serves: to start it, and to close it."""
    node = app.extensions[EXTENSION]
    assert isinstance(node, Node)  # noqa: S101 - for the type checker
    return node
