"""Import every module of a package in this fresh interpreter and report what that did; run by a test.

probe_imports.py effects PACKAGE             sockets, processes, threads, files written, environment read
probe_imports.py alone PACKAGE [ALLOWED...]  anything beyond the standard library and ALLOWED, what needs an
                                             extra left aside

Exit status 0: nothing to report. 1: one line for each finding, `module: what`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Final

# Audit events (PEP 578). Threads are seen at Thread.start: Python 3.11 has no event for them.
EFFECTS: Final = (
    "os.exec",
    "os.fork",
    "os.link",
    "os.mkdir",
    "os.posix_spawn",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "os.system",
    "os.truncate",
    "socket.",
    "sqlite3.",
    "subprocess.",
)
EXTRAS: Final = ("cli", "integrations", "retrying")
"""The modules of a package that need more than it: for whoever has installed that."""

OTHERS: Final = ("celery", "httpx", "httpx2", "requests", "sqlalchemy", "tenacity")
"""What those need. What importing it does is its own affair: urllib3 looks whether there is IPv6."""

WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC


class Findings:
    """What importing did, each with the module that was being imported."""

    def __init__(self) -> None:
        self.importing: str | None = None
        self.lines: list[str] = []

    def add(self, what: str) -> None:
        """Report `what`, unless no module is being imported now."""
        if self.importing is not None:
            self.lines.append(f"{self.importing}: {what}")


class OnlyAllowed:
    """A finder before all others that hides what is neither allowed nor in the standard library."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self.allowed = sys.stdlib_module_names | {*allowed}

    def find_spec(self, name: str, path: object, target: object = None) -> None:  # noqa: ARG002 - importlib's
        """Leave an allowed module to the finders behind; refuse another as if it were not installed."""
        if name.partition(".")[0] not in self.allowed:
            raise ModuleNotFoundError(f"No module named {name!r} (hidden by the probe)", name=name)


def module_names(package: str) -> Iterator[str]:
    """Yield the package and every module in it but `__main__`, which is there to be run.

    The walk looks into a package after it was yielded: by then the caller has imported it, watched.
    """
    yield package
    for module in pkgutil.walk_packages(sys.modules[package].__path__, f"{package}."):
        if not module.name.endswith(".__main__"):
            yield module.name


def watch_events(findings: Findings) -> None:
    """Report sockets, processes and files written; an import answers for all it pulls in."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if findings.importing is None:
            return
        if event.startswith(EFFECTS):
            findings.add(f"{event} {arguments!r:.200}")
        elif event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING:
                findings.add(f"opens {path!r} for writing")

    sys.addaudithook(hook)


def watch_threads(findings: Findings) -> None:
    """Report threads started, however short they live."""
    start = threading.Thread.start

    def seen_start(self: threading.Thread) -> None:
        findings.add(f"starts {self!r}")
        start(self)

    setattr(threading.Thread, "start", seen_start)  # noqa: B010 - a type checker rightly forbids the plain form


def watch_environment(findings: Findings, folder: str) -> None:
    """Report reads of the environment by files in `folder`; those of other packages are their own affair."""
    kind = type(os.environ)
    lookup, iterate = kind.__getitem__, kind.__iter__

    def report(what: str) -> None:
        frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - a reader has no other name than its frame
        while frame is not None and frame.f_code.co_filename.startswith("<frozen "):
            frame = frame.f_back  # os.getenv, Mapping.get: the reader stands behind them
        if frame is not None and frame.f_code.co_filename.startswith(folder):
            findings.add(f"reads {what}")

    def seen_lookup(self: os._Environ[str], key: str) -> str:
        report(f"environment variable {key}")
        return lookup(self, key)

    def seen_iterate(self: os._Environ[str]) -> Iterator[str]:
        report("the whole environment")
        return iterate(self)

    setattr(kind, "__getitem__", seen_lookup)  # noqa: B010 - as above
    setattr(kind, "__iter__", seen_iterate)  # noqa: B010 - as above


def effects(package: str) -> list[str]:
    """Import every module of `package` and return what that did beyond defining names."""
    findings = Findings()
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return [f"{package}: no such package"]
    for other in OTHERS:
        if importlib.util.find_spec(other) is not None:
            importlib.import_module(other)
    watch_events(findings)
    watch_threads(findings)
    watch_environment(findings, spec.submodule_search_locations[0])
    for name in module_names(package):
        findings.importing = name
        importlib.import_module(name)
        findings.importing = None
    return findings.lines


def alone(package: str, *allowed: str) -> list[str]:
    """Import every module of `package` but its extras where only `allowed` is installed."""
    findings: list[str] = []
    sys.meta_path.insert(0, OnlyAllowed([package, *allowed]))
    for name in module_names(package):
        if name.startswith(tuple(f"{package}.{extra}" for extra in EXTRAS)):
            continue
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as missing:
            findings.append(f"{name}: needs {missing.name}")
    return findings


def main(task: str, *arguments: str) -> int:
    """Run the task, print its findings and return the exit status."""
    findings = {"effects": effects, "alone": alone}[task](*arguments)
    sys.stdout.writelines(f"{finding}\n" for finding in findings)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
