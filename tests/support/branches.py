"""A run tree over several processes, and the sink that counts its effects in a process of its own.

``python -m tests.support.branches sink FILE`` listens, prints its port, and writes a line for each line that it gets,
``<nanoseconds of the wall clock> <line>``. The others send it ``effect <run>`` and ``stop <run> <reason>``:

``far SINK COUNT`` serves HTTP, prints its port, and begins COUNT children of each run whose headers it is sent;
``env SINK COUNT SIBLING`` begins COUNT children of the run in its environment, and one of a sibling given as text;
``root SINK COUNT FAR BELOW`` begins the run and its sibling, COUNT children of its own, calls ``far``, and starts an
``env`` for BELOW children.

Each ends when its standard input does. The service's address and token come from the environment.
"""

from __future__ import annotations

import http.client
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from haltline import Carried, Halt, Killed, KillSwitch, Run, carry, check, current_run, inject
from tests.support.ports import LOOPBACK

PAUSE_S: Final = 0.05
PATIENCE_S: Final = 20.0


class Sink:
    """The way to the sink."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((LOOPBACK, port))
        self._lock = threading.Lock()

    def tell(self, line: str) -> None:
        """Send a line."""
        with self._lock:
            self._socket.sendall(f"{line}\n".encode())


def work(sink: Sink) -> None:
    """Have one effect after another, asking before each, until the current run is killed."""
    run = current_run()
    while True:
        try:
            check("send_email")
            sink.tell(f"effect {run.id}")
        except Killed as killed:
            sink.tell(f"stop {run.id} {killed.verdict.reason.value}")
            return
        except Halt:
            pass  # a machine under load: not proven for the moment, and not dead
        time.sleep(PAUSE_S)


def fan_out(run: Run, sink: Sink, count: int) -> None:
    """Begin children of a run, each in a thread that is told its run by nothing but ``carry``."""
    for number in range(count):
        child = run.child(f"{os.getpid()}-{number}")
        child.arm(PATIENCE_S)
        threading.Thread(target=carry(work, run=child), args=(sink,), daemon=True).start()


def sink(file: Path) -> None:
    """Write down what comes, and when."""
    lock = threading.Lock()
    with file.open("w", buffering=1) as out:

        class Take(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                for line in self.rfile:
                    with lock:
                        out.write(f"{time.time_ns()} {line.decode()}")

        class Listening(socketserver.ThreadingTCPServer):
            daemon_threads = True

        with Listening((LOOPBACK, 0), Take) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            _told(server.server_address[1])


def far(switch: KillSwitch, told: Sink, count: int) -> None:
    """Serve calls that are made for a run."""

    class Called(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            run = switch.join(self.headers, timeout=PATIENCE_S)
            run.arm()
            fan_out(run, told, int(self.path.strip("/") or count))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
            """Say nothing."""

    with ThreadingHTTPServer((LOOPBACK, 0), Called) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _told(server.server_address[1])


def env(switch: KillSwitch, told: Sink, count: int, sibling: str) -> None:
    """Go on with the run that this process was started for."""
    for run, children in ((switch.join(os.environ), count), (switch.join(Carried.parse(sibling)), 1)):
        run.arm(PATIENCE_S)
        fan_out(run, told, children)
    _told(0)


def root(switch: KillSwitch, told: Sink, count: int, port: int, below: str) -> None:
    """Begin the tree and its sibling."""
    with switch.run("r-1", tenant="acme", timeout=PATIENCE_S) as run, switch.run("r-2", tenant="acme") as sibling:
        fan_out(run, told, count)
        fan_out(sibling, told, 1)
        sent = run.child("sent")  # what is carried has an ancestor: the root that is killed
        sent.arm()
        for each, path in ((sent, "/"), (sibling, "/1")):
            call = http.client.HTTPConnection(LOOPBACK, port, timeout=30)
            call.request("POST", path, headers=inject({"Baggage": "user=u-1"}, run=each))
            if call.getresponse().status != 204:
                raise RuntimeError("the far process did not begin")
        arguments = [sys.executable, "-m", "tests.support.branches", "env", sys.argv[2], below, str(sibling.carried)]
        variables = {**os.environ, "HALTLINE_RUN": str(sent.carried)}
        with subprocess.Popen(arguments, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            if child.stdout is None or not child.stdout.readline():
                raise RuntimeError("the process below did not begin")
            _told(0)


def _told(port: int) -> None:
    """Say that everything has begun, and wait until there is nobody left to work for."""
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    sys.stdin.read()


def main() -> None:
    """Do what the arguments say."""
    what = sys.argv[1]
    if what == "sink":
        sink(Path(sys.argv[2]))
        return
    told, count = Sink(int(sys.argv[2])), int(sys.argv[3])
    with KillSwitch() as switch:
        if what == "far":
            far(switch, told, count)
        elif what == "env":
            env(switch, told, count, sys.argv[4])
        else:
            root(switch, told, count, int(sys.argv[4]), sys.argv[5])


if __name__ == "__main__":
    main()
