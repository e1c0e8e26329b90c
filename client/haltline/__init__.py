"""Haltline: a scoped kill switch for fleets of AI agents. Ask it before every side effect; in doubt it says stop."""

from __future__ import annotations

from haltline.carried import Carried
from haltline.carry import CarryingExecutor, carry
from haltline.current import check, current_run, guarded
from haltline.errors import (
    CapabilityFrozen,
    ChainBroken,
    ConfigurationError,
    Halt,
    HaltlineError,
    InvalidCarrier,
    InvalidDocument,
    InvalidEntry,
    InvalidTarget,
    Killed,
    PositionGap,
    ServiceError,
    StampRefused,
    Unverified,
)
from haltline.plans import Discarded
from haltline.propagation import extract, inject
from haltline.run import Run
from haltline.scopes import Scope, Target
from haltline.stopped import RunStopped
from haltline.switch import KillSwitch
from haltline.verdict import Go, Hold, Reason, Refusal, Stop, Verdict

__all__ = [
    "CapabilityFrozen",
    "Carried",
    "CarryingExecutor",
    "ChainBroken",
    "ConfigurationError",
    "Discarded",
    "Go",
    "Halt",
    "HaltlineError",
    "Hold",
    "InvalidCarrier",
    "InvalidDocument",
    "InvalidEntry",
    "InvalidTarget",
    "KillSwitch",
    "Killed",
    "PositionGap",
    "Reason",
    "Refusal",
    "Run",
    "RunStopped",
    "Scope",
    "ServiceError",
    "StampRefused",
    "Stop",
    "Target",
    "Unverified",
    "Verdict",
    "carry",
    "check",
    "current_run",
    "extract",
    "guarded",
    "inject",
]
