"""The lanes: which part of the service a process serves."""

from __future__ import annotations

from enum import StrEnum


class Lane(StrEnum):
    """Which part of the service a process serves."""

    ALL = "all"
    """Both, in one process and on one port."""
    CONTROL = "control"
    """Flips, flags, tokens, settings and the log, for operators."""
    WORKER = "worker"
    """Leases and acks, for workers."""
