"""Open files: each lease stream is one, and the limit of the process is the real cap."""

from __future__ import annotations

import resource
from dataclasses import replace
from typing import Final

import click

from app.config import Config
from app.domain.lanes import Lane

BESIDE: Final = 1_200
"""Open files of a serving process beside its streams: other connections, the database's, the libraries'."""


TLS_STREAMS: Final = 2_000
"""How many streams a process carries that speaks TLS itself."""


def affordable(config: Config) -> Config:
    """Return the configuration with as many streams as this process may open files, its limit raised where it may be.

    A process at its limit of open files answers nobody: so fewer streams are taken, and the rest is told to ask
    another node.
    """
    if config.tls_cert is not None and config.streams_max > TLS_STREAMS:
        # Where TLS is spoken here each stream has a greenlet that writes it: see docs/decisions/0016.
        config = replace(config, streams_max=TLS_STREAMS)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = BESIDE if config.lane is Lane.CONTROL else config.streams_max + BESIDE
    if _fits(needed, soft):
        return config
    wanted = needed if _fits(needed, hard) else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted == needed:
        return config
    streams = max(1, wanted - BESIDE)
    click.echo(
        f"haltline-server: this process may open {wanted} files, which is enough for {streams} lease streams, not for "
        f"{config.streams_max}: raise it (LimitNOFILE={needed} in a systemd unit, ulimit -n {needed} in a shell), or "
        f"set HALTLINE_STREAMS_MAX={streams}",
        err=True,
    )
    return replace(config, streams_max=streams)


def _fits(needed: int, limit: int) -> bool:
    return limit == resource.RLIM_INFINITY or needed <= limit
