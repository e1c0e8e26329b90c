"""Connections: whether whoever asked is still there to be answered."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, Final

_ESTABLISHED: Final = 1
"""TCP_ESTABLISHED in the first byte of TCP_INFO: https://man7.org/linux/man-pages/man7/tcp.7.html."""


def gone(environ: Mapping[str, Any]) -> bool:
    """Return whether the other end of a request's connection is known to have closed it; nothing is read from it.

    Args:
        environ: the request's environment.
    """
    connection = environ.get("gunicorn.socket")
    return connection is not None and left(connection)  # else a test: writing to it finds out


def left(connection: Any) -> bool:
    """Return whether the other end of a connection is known to have closed it; nothing is read from it."""
    info = getattr(socket, "TCP_INFO", None)
    if info is None:
        return False  # not Linux
    try:
        return bool(connection.getsockopt(socket.IPPROTO_TCP, info, 1)[0] != _ESTABLISHED)
    except OSError:
        return bool(connection.fileno() < 0)
