"""How far the tests go, and the seed that repeats them: the same on every push, another one each night."""

from __future__ import annotations

import os
import random
from typing import Final

NIGHTLY: Final = os.environ.get("HALTLINE_NIGHTLY") == "1"

REQUESTS: Final = 10_000 if NIGHTLY else 1_000
"""How many random requests are drawn from the OpenAPI document."""

IDS: Final = 5_000 if NIGHTLY else 1_000
"""How many ids make their way through kill, flag, log and export."""

HERD: Final = 1_000 if NIGHTLY else 100
"""How many clients lose their node at once, and come back when it does."""

HERD_TLS: Final = 300
"""The same by TLS, where a handshake costs the node more than all else."""

HERD_SWITCHES: Final = 30 if NIGHTLY else 10
"""How many real switches are among them."""

HERD_OUTAGE_S: Final = 30.0 if NIGHTLY else 3.5
"""For how long the node is away, seconds."""
TREES: Final = 1_000 if NIGHTLY else 100
"""How many random run trees are grown and killed."""


def _seed() -> int:
    named = os.environ.get("HALTLINE_FUZZ_SEED")
    if named is not None:
        return int(named)
    # A red run of a push is about the change, not about the draw.
    return random.SystemRandom().randrange(2**32) if NIGHTLY else 20_261_120


SEED: Final = _seed()
"""What every draw follows from; HALTLINE_FUZZ_SEED repeats a night's."""
