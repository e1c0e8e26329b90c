"""The pools of each lane."""

from __future__ import annotations

from app.domain.lanes import Lane
from app.storage.postgres_pools import LANES


def test_each_lane_has_its_pools() -> None:
    """Pools are named by the one enum of lanes, and none is left out; every lane can read and refresh."""
    assert set(LANES) == set(Lane)
    assert {type(lane) for lane in LANES} == {Lane}
    assert all(pools.reads and pools.refresh for pools in LANES.values())
