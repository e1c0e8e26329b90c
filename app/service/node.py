"""A node: the parts of one service process, put together by the composition root and handed to every view."""

from __future__ import annotations

from dataclasses import dataclass

from app.service.acks import Acks
from app.service.chores import Chores
from app.service.clocks import Clocks
from app.service.doorbell import BackgroundBell
from app.service.events import Events
from app.service.exports import Exports
from app.service.flips import Flips
from app.service.frames import Frames
from app.service.outcomes import Outcomes
from app.service.refresher import Refresher
from app.service.settings import Settings
from app.service.skew import Skew
from app.service.stamp_keys import StampKeys
from app.service.store import Store
from app.service.streams import Streams
from app.service.tokens import Tokens
from app.service.turns import Turns
from app.service.upkeep import Upkeep


@dataclass(frozen=True, slots=True)
class Node:
    """One service process.

    Attributes:
        namespace: the namespace of its log.
        store: where the log is kept.
        clocks: what time it is.
        tokens: who may what.
        flips: the kill and the revive.
        refresher: the thread that reads the log.
        frames: what lease requests are answered with.
        skew: how far its clock is from the database's.
        settings: what holds for all nodes.
        exports: the log as JSON lines.
        events: the log as it grows.
        streams: the lease streams that are open.
        acks: how far workers say that they are.
        turns: how many requests of workers are served at once.
        stamp_keys: what workers seal planned work with.
        outcomes: what the clean-up of stopped runs came to.
        chores: what is done now and then.
        bell: tells the refreshers of all nodes that the log has grown.
        upkeep: does now and then what no request should wait for.
    """

    namespace: str
    store: Store
    clocks: Clocks
    tokens: Tokens
    flips: Flips
    refresher: Refresher
    frames: Frames
    skew: Skew
    settings: Settings
    exports: Exports
    events: Events
    streams: Streams
    acks: Acks
    turns: Turns
    stamp_keys: StampKeys
    outcomes: Outcomes
    chores: Chores
    bell: BackgroundBell
    upkeep: Upkeep

    def start(self) -> None:
        """Start the refresher, the doorbell, the upkeep and the chores; in the process that serves, after any fork."""
        self.refresher.ensure_running()
        self.bell.start()
        self.upkeep.start()
        self.chores.start()

    def drain(self) -> None:
        """Have what would last end by itself soon: the process is told to stop."""
        self.streams.close()
        self.events.close()

    def close(self) -> None:
        """End the threads, then give back the store's connections."""
        self.drain()
        self.upkeep.close()
        self.refresher.close()
        self.bell.close()
        self.chores.close()
        self.store.close()
