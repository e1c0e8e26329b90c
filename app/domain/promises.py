"""When a kill is certain to have reached every worker: the arithmetic behind ``effective_at``."""

from __future__ import annotations

import math
from typing import Final

TTL_MIN_MS = 200
TTL_MAX_MS = 5_000
"""A lease never lasts longer, whatever a frame says: milliseconds."""

CLOCKS_APART_S: Final = 1.0
"""How far the wall clocks of two nodes may be apart: what one wrote down is compared with what another reads."""

NOT_KNOWN: Final = math.inf
"""``changed_at`` of a ttl as long as nobody has written down when its change was in force."""


ALONE_S: Final = CLOCKS_APART_S / 2
"""How far one node's clock may be from the database's, seconds: two such nodes are not too far from each other."""

RECENT_S: Final = 2 * TTL_MAX_MS / 1000
"""For how long after a change a kill of a node whose clock is wrong promises the longer ttl, seconds.

An older lease runs for half of it at most. The other half is for the measure of the clock, which is out by what the
question to the database took.
"""


def effective_at(
    committed: float, *, ttl_ms: int, changed_at: float = 0.0, before_ms: int = 0, ahead: float = 0.0
) -> float:
    """Return when the last lease granted without the flip has ended, in seconds since the Unix epoch.

    Args:
        committed: the node's clock after the commit returned, seconds since the Unix epoch.
        ttl_ms: the lease ttl read in the flip's transaction, milliseconds.
        changed_at: when its last change was in force for every read, or later, seconds since the Unix epoch; 0 if it
            was never changed, infinity if that is not known.
        before_ms: for how long after it a lease of an earlier ttl may still run.
        ahead: how far the node's clock is ahead of the database's, seconds, as far as that is known.
    """
    promised = committed + min(ttl_ms, TTL_MAX_MS) / 1000
    if changed_at > 0:
        if abs(ahead) > ALONE_S and committed - ahead - changed_at < RECENT_S:
            changed_at = committed  # of a clock that is wrong: it cannot say how long ago the change was
        # The flip was written under the lock that the change had held before: the change is never the later of them.
        promised = max(promised, min(changed_at, committed) + min(before_ms, TTL_MAX_MS) / 1000)
    return promised


def outlasting_ms(now: float, *, ttl_ms: int, changed_at: float = 0.0, before_ms: int = 0) -> int:
    """Return for how long after a change of the ttl, in force at ``now`` or later, an older lease may still run.

    That is the ttl until now; or what is left of an earlier change's own, where that is longer: a lease of 5 s does not
    end because the ttl was lowered twice.

    Args:
        now: a reading of the clock before the change is in force, seconds since the Unix epoch.
        ttl_ms: the ttl until now.
        changed_at: as in :func:`effective_at`, of the last change.
        before_ms: likewise.

    Returns:
        milliseconds, at most 5000.
    """
    left = float(before_ms) if changed_at > 0 else 0.0
    if 0 < changed_at < NOT_KNOWN:
        left += (changed_at - now) * 1000
    return min(max(ttl_ms, math.ceil(left)), TTL_MAX_MS)
