"""How the figures of kills and streams are judged."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench.fanout import TEN_THOUSAND, THOUSAND, Fanned, Steady, figures
from bench.figure import Figure, Met
from bench.peers import NotInstalled
from bench.spread import Spread, lasts, percentile, spread
from bench.unleash_server import installed

KIB = 1_024


def rows(size: int, *, last_s: float, raw_s: float, cores: float = 0.3, frames: float | None = None) -> list[Figure]:
    """Return the rows of a measurement that came to these."""
    kills = [Spread(last_s / 2, last_s / 2, last_s)] * 3
    steady = Steady(cores, 4.0 * size if frames is None else frames, 100.0, 0, 0.1)
    return list(figures("here", size, Fanned(kills, kills, 8.0 * KIB, steady), [Spread(raw_s, raw_s, raw_s)] * 3))


def test_times_count_from_when_it_was_sent() -> None:
    """What a crowd tells in nanoseconds of the shared clock becomes seconds since then."""
    times = spread({"seq": 7, "first": 2_000_000_000, "median": 2_500_000_000, "last": 3_000_000_000}, 1_000_000_000)
    assert times == Spread(1.0, 1.5, 2.0)
    assert lasts([times]) == [2.0]


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_percentile_is_one_of_the_values(share: float, value: float) -> None:
    """Nothing is made up between two of them."""
    assert percentile([float(each) for each in range(100, 0, -1)], share) == value


def test_a_percentile_of_few_is_the_largest() -> None:
    """Ten kills have no better 99th percentile than their worst."""
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0


@pytest.mark.parametrize(
    ("size", "last_s", "met"),
    [
        (THOUSAND, 0.014, Met.GOAL),
        (THOUSAND, 0.029, Met.MUST),
        (THOUSAND, 0.031, Met.MISSED),
        (TEN_THOUSAND, 0.014, Met.GOAL),
        (TEN_THOUSAND, 0.299, Met.MUST),
        (TEN_THOUSAND, 0.301, Met.MISSED),
    ],
)
def test_a_thousand_are_held_against_the_floor_and_ten_thousand_against_the_clock(
    size: int, last_s: float, met: Met
) -> None:
    """Three times raw Pub/Sub for 1,000; 300 ms for 10,000; the goal is one and a half times raw Pub/Sub for both."""
    assert rows(size, last_s=last_s, raw_s=0.010)[0].met is met


def test_a_slow_floor_excuses_nothing_of_ten_thousand() -> None:
    """Beside a raw Pub/Sub that is late itself, the 300 ms still have to hold."""
    assert rows(TEN_THOUSAND, last_s=0.31, raw_s=0.30)[0].met is Met.MISSED


@pytest.mark.parametrize(("frames", "met"), [(None, Met.GOAL), (38_100.0, Met.GOAL), (37_900.0, Met.MISSED)])
def test_a_node_that_falls_behind_has_not_reached_its_figure(frames: float | None, met: Met) -> None:
    """Sending fewer frames than are due is no way to use less of a core."""
    assert rows(TEN_THOUSAND, last_s=0.1, raw_s=0.1, frames=frames)[3].met is met


def test_without_node_js_there_is_no_unleash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be had its rows say so, instead of failing the run."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotInstalled, match=r"Node\.js"):
        installed()


def test_the_unleash_client_needs_nothing_of_the_service() -> None:
    """It runs in an environment that has neither Flask nor a database driver."""
    script = "import sys, bench.unleash_client; assert not {'flask', 'sqlalchemy', 'psycopg'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


def test_the_peers_agent_needs_nothing_of_the_service() -> None:
    """Frames are built by the service's own code, which needs no more than the client there."""
    script = "import sys, bench.peer_clients; assert not {'flask', 'sqlalchemy', 'psycopg'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
