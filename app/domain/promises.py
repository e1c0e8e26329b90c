"""When a kill is certain to have reached every worker: the arithmetic behind ``effective_at``."""

from __future__ import annotations

TTL_MIN_MS = 200
TTL_MAX_MS = 5_000
"""A lease never lasts longer, whatever a frame says: milliseconds."""


def effective_at(committed: float, *, ttl_ms: int, changed_at: float = 0.0, before_ms: int = 0) -> float:
    """Return when the last lease granted without the flip has ended, in seconds since the Unix epoch.

    Args:
        committed: the node's clock after the commit returned, seconds since the Unix epoch.
        ttl_ms: the lease ttl read in the flip's transaction, milliseconds.
        changed_at: when it was last changed, seconds since the Unix epoch; 0 if never.
        before_ms: the ttl before that change: leases of that length may still run.
    """
    promised = committed + min(ttl_ms, TTL_MAX_MS) / 1000
    if changed_at > 0:
        promised = max(promised, changed_at + min(before_ms, TTL_MAX_MS) / 1000)
    return promised
