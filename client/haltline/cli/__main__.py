"""``python -m haltline.cli``: the command line where its script is not on the path."""

from __future__ import annotations

from haltline.cli import main

main()
