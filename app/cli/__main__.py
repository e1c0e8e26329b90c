"""Run the haltline-server command: python -m app.cli."""

from __future__ import annotations

from app.cli.commands import main

if __name__ == "__main__":
    main()
