"""A production-like set of nodes on one PostgreSQL: control and worker lanes, each a process with a port of its own."""

from __future__ import annotations

import contextlib
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

from tests.e2e.server import Reply, Server

_AT_ONCE: Final = 2
"""How many nodes start at once: starting is work for a processor, and all of them have the same patience."""

_PATIENCE_S: Final = 60.0


class Node(Server):
    """A server that may take its time to start: it is one of several, on a machine that others use as well."""

    def wait_ready(self, seconds: float = _PATIENCE_S) -> None:
        """Wait until it is ready."""
        super().wait_ready(seconds)


class Fleet:
    """The nodes; a context manager that leaves nothing behind.

    Args:
        folder: where each node has a folder of its own.
        database_url: the PostgreSQL database of all, migrated and without a log.
        together: how many control lanes and how many worker lanes start at once and begin the log.
        settings: more environment of every node.

    Attributes:
        control: the control lanes.
        workers: the worker lanes.
        admin: a token that makes tokens.
        operator: a token that may kill and revive.
        worker_token: a token that may hold leases.
    """

    def __init__(self, folder: Path, database_url: str, *, together: tuple[int, int] = (1, 0), **settings: str) -> None:
        self._folder = folder
        self._together = together
        self._settings = {"HALTLINE_DATABASE_URL": database_url, **settings}
        self._stack = ExitStack()
        self._over = False
        self.control: list[Server] = []
        self.workers: list[Server] = []
        self.admin = self.operator = self.worker_token = ""

    def __enter__(self) -> Self:
        """Start the first lanes, and have one of them make the tokens."""
        control = [self._made("control", number) for number in range(self._together[0])]
        workers = [self._made("worker", number) for number in range(self._together[1])]
        try:
            self._begin([*control, *workers], at_once=len(control) + len(workers))
            self.control, self.workers = control, workers
            (self.admin,) = (lane.token for lane in control if lane.token)
            self.operator, _ = self.issue("operator")
            self.worker_token, _ = self.issue("worker")
        except BaseException:
            self._stack.close()
            raise
        for each in control:
            each.token = self.operator
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every node, whatever state it is in."""
        nodes = [*self.workers, *self.control]
        for node in nodes:
            for process in processes(node):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)
        if nodes:
            with ThreadPoolExecutor(len(nodes)) as pool:
                list(pool.map(Server.end, nodes))
        self._over = True
        self._stack.close()

    def grow(self, *, control: int = 0, workers: Sequence[dict[str, str]] = (), url: str | None = None) -> None:
        """Start more nodes.

        Args:
            control: how many control lanes.
            workers: what is different in the environment of each new worker lane.
            url: the database as the new control lanes reach it; None for the way of the others.
        """
        way = {} if url is None else {"HALTLINE_DATABASE_URL": url}
        more = [self._made("control", len(self.control) + number, **way) for number in range(control)]
        lanes = [self._made("worker", len(self.workers) + number, **each) for number, each in enumerate(workers)]
        self._begin([*more, *lanes], at_once=_AT_ONCE)
        for each in more:
            each.token = self.operator
        self.control += more
        self.workers += lanes

    def issue(self, role: str, subject: str = "") -> tuple[str, str]:
        """Have a control lane make a token; return it and its id."""
        body = {"role": role, "subject": subject or f"the-{role}"}
        reply = self.control[0].call("POST", "/v1/tokens", body, headers={"Authorization": f"Bearer {self.admin}"})
        assert reply.status == 201, reply.body
        return str(reply.members["token"]), str(reply.members["token_id"])

    def _begin(self, nodes: Sequence[Server], *, at_once: int) -> None:
        with ThreadPoolExecutor(at_once) as pool:
            started = [pool.submit(self._start, each) for each in nodes]
        for future in started:
            future.result()

    def _start(self, server: Server) -> None:
        try:
            server.start()
        finally:
            self._stack.callback(server.end)  # also one that did not get ready in time
            if self._over:
                self._stack.close()

    def _made(self, lane: str, number: int, **more: str) -> Server:
        folder = self._folder / f"{lane}-{number}"
        folder.mkdir()
        return Node(folder, more={**self._settings, "HALTLINE_LANE": lane, **more})


def kill(server: Server, target: str, patience_s: float = 20.0) -> Reply:
    """Kill a target as the command line does: a lane that is too busy now is asked again with the same flip_id."""
    flip_id, until = f"f-{uuid.uuid4().hex}", time.monotonic() + patience_s
    while True:
        reply = server.kill(target, flip_id=flip_id)
        if reply.status != 503 or time.monotonic() > until:
            assert reply.status in (200, 201), reply.body
            return reply
        time.sleep(0.1)


def url(server: Server) -> str:
    """Return where a node answers."""
    return f"http://127.0.0.1:{server.port}"


def eventually(holds: Callable[[], bool], within_s: float) -> bool:
    """Wait until something holds; return whether it did in time."""
    until = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.002)
    return True


def crash(server: Server) -> None:
    """Kill every process of a server with SIGKILL, the one that serves first."""
    for process in reversed(processes(server)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    server.process.wait(10)


def processes(server: Server) -> list[psutil.Process]:
    """Return the processes of a node: the one that was started, and the one that serves."""
    try:
        first = psutil.Process(server.process.pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def send(server: Server, number: signal.Signals) -> None:
    """Send a signal to every process of a node."""
    for process in processes(server):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """Stop a node with SIGSTOP for as long as the block lasts."""
    send(server, signal.SIGSTOP)
    try:
        yield
    finally:
        send(server, signal.SIGCONT)
