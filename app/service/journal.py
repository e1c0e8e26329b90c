"""The journal: one JSON object a line to standard error, without secrets.

Tracebacks carry no local variables, and whatever looks like a token is masked in the finished line: two guards behind
the first one, which is that no code logs a token.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from app.domain.tokens import mask

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_PREPARE: Final[list[Processor]] = [
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    structlog.processors.format_exc_info,
]


class _Line:
    """The last processor: the finished line, tokens masked, nothing but ASCII."""

    def __init__(self) -> None:
        self._render = structlog.processors.JSONRenderer()

    def __call__(self, logger: WrappedLogger, name: str, event: EventDict) -> str:
        line = self._render(logger, name, event)
        return mask(line if isinstance(line, str) else line.decode("utf-8"))


def _stderr(*_: Any) -> structlog.WriteLogger:
    # Looked up at each line, not kept: a test or a supervisor may put another stream in its place.
    return structlog.WriteLogger(sys.stderr)


def formatter() -> logging.Formatter:
    """Return what formats the standard library's log records alike."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_PREPARE,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _Line()],
    )


def configure(level: str) -> None:
    """Have everything that is logged in this process written to the journal.

    Args:
        level: the least serious event to write: debug, info, warning or error.
    """
    structlog.configure(
        processors=[*_PREPARE, _Line()],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=_stderr,
        cache_logger_on_first_use=False,
    )


def configure_libraries() -> None:
    """Have what libraries log, from warnings up, written to the journal as well."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
