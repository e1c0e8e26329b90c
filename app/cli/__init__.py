"""The haltline-server command."""

from __future__ import annotations

from app.cli.commands import main

__all__ = ["main"]
