"""What a serving process runs: the application, its node started. Import it after gevent has patched the process."""

from __future__ import annotations

import os
from typing import Any

import structlog
from flask import Flask

from app.config import Config, from_env
from app.factory import create_app, node_of
from app.service.journal import configure, configure_libraries


def serving(config: Config) -> Flask:
    """Return the application of this process, its refresher running.

    Raises:
        StoreUnavailable: the database cannot be opened; the message says what to do.
        LogDiverged: the database holds the log of another namespace.
    """
    configure(config.log_level)
    configure_libraries()
    app = create_app(config)
    node_of(app).start()
    log: Any = structlog.get_logger(__name__)
    log.info("serving", bind=config.bind, namespace=config.namespace, embedded=config.embedded)
    return app


def from_environment() -> Flask:
    """Return the same for the environment's configuration: for a WSGI server other than `haltline-server serve`.

    Raises:
        ConfigInvalid: a variable cannot work.
    """
    return serving(from_env(os.environ))
