"""Haltline: a scoped kill switch for fleets of AI agents. Ask it before every side effect; in doubt it says stop."""

from __future__ import annotations

from haltline.current import check, current_run, guarded
from haltline.errors import (
    CapabilityFrozen,
    ChainBroken,
    ConfigurationError,
    Halt,
    HaltlineError,
    InvalidDocument,
    InvalidEntry,
    InvalidTarget,
    Killed,
    PositionGap,
    ServiceError,
    Unverified,
)
from haltline.run import Run
from haltline.scopes import Scope, Target
from haltline.switch import KillSwitch
from haltline.verdict import Go, Hold, Reason, Stop, Verdict

__all__ = [
    "CapabilityFrozen",
    "ChainBroken",
    "ConfigurationError",
    "Go",
    "Halt",
    "HaltlineError",
    "Hold",
    "InvalidDocument",
    "InvalidEntry",
    "InvalidTarget",
    "KillSwitch",
    "Killed",
    "PositionGap",
    "Reason",
    "Run",
    "Scope",
    "ServiceError",
    "Stop",
    "Target",
    "Unverified",
    "Verdict",
    "check",
    "current_run",
    "guarded",
]
