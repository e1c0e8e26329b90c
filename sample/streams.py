"""How many lease streams a worker node carries, as its metrics say."""

from __future__ import annotations

import re
from typing import Final

from sample.api import exchange

_STREAMS: Final = re.compile(r"^haltline_streams ([0-9.e+]+)$", re.MULTILINE)


def streams(port: int) -> int:
    """Return how many lease streams the node on a port of 127.0.0.1 carries; 0 where it does not say.

    Raises:
        Trouble: it did not answer.
    """
    _, body = exchange(port, "GET", "/metrics", None, {})
    found = _STREAMS.search(body.decode("utf-8", "replace"))
    return int(float(found[1])) if found else 0
