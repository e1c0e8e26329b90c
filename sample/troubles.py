"""What can keep the sample from running, told in one line."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable


class Trouble(Exception):
    """The sample cannot go on; the message is one line that says what to do."""


class Broken(Trouble):
    """A bound is broken in such a way that the sample cannot go on."""


def need(packages: Iterable[str], *, cure: str = "`make run` and `make demo` install what is needed.") -> None:
    """Look for packages that are imported later.

    Args:
        packages: their import names.
        cure: what to do where some are missing, a sentence.

    Raises:
        Trouble: some are not installed.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise Trouble(f"not installed: {', '.join(missing)}. {cure}")
