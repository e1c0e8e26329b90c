"""The blow: while a kill is on its way, a control lane and a worker node are killed with SIGKILL.

The control lane that an operator's command line asks first is frozen, so that the kill certainly lies there unread;
then, with the kill in its hands, it is killed, and at the same moment the worker node that the fleet hangs on. What
is left is for the command line to find the other control lane, and for the fleet to find another node.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from sample.cluster import Cluster
from sample.ports import unread_bytes
from sample.streams import streams
from sample.troubles import Trouble

_LOOK_S: Final = 0.001
_PATIENCE_S: Final = 20.0


class Blow:
    """One blow, a context manager: it falls while the block sends a kill.

    Args:
        cluster: what is struck.
        now_ns: the observer's clock, nanoseconds.
        say: tells the audience.

    Attributes:
        control: the control lane that is struck.
        node: the worker node that is struck.
        fell_ns: when, on the observer's clock; 0 before.
    """

    def __init__(self, cluster: Cluster, now_ns: Callable[[], int], say: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._now_ns = now_ns
        self._say = say
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._fall, name="blow", daemon=True)
        self.carried = {each.name: streams(each.port) for each in cluster.nodes}
        self.control = cluster.control[0]
        self.node = max(cluster.nodes, key=lambda each: self.carried[each.name])
        self.fell_ns = 0

    def __enter__(self) -> Self:
        """Freeze the control lane, and wait for the kill in another thread."""
        self._say(
            f"  $ kill -STOP -{self.control.pid}    ({self.control.name} hangs: it takes connections, and no more)"
        )
        self.control.freeze()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until it has fallen.

        Raises:
            Trouble: the kill never came to the control lane.
        """
        if kind is not None:
            self._ended.set()
        self._thread.join()
        if kind is None and not self.fell_ns:
            raise Trouble(f"no kill reached {self.control.name}: nothing could be struck in mid-stop")

    def _fall(self) -> None:
        until = time.monotonic() + _PATIENCE_S
        while not unread_bytes(self.control.port):
            if self._ended.wait(_LOOK_S) or time.monotonic() > until:
                return
        # Before the two signals: whatever follows them counts.
        fell_ns = self._now_ns()
        self._cluster.strike(self.control, self.node)
        self.fell_ns = fell_ns
        streams_of_all = f"{self.carried[self.node.name]} of {sum(self.carried.values())} lease streams"
        self._say(
            f"  $ kill -9 -{self.control.pid} -{self.node.pid}    ({self.control.name}, the kill unread in its hands; "
            f"{self.node.name}, with {streams_of_all})"
        )
