"""What can keep the sample from running, told in one line."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable


class Trouble(Exception):
    """The sample cannot go on; the message is one line that says what to do."""


def need(packages: Iterable[str]) -> None:
    """Look for packages that are imported later.

    Raises:
        Trouble: some are not installed.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise Trouble(f"not installed: {', '.join(missing)}. `make run` and `make demo` install what is needed.")
