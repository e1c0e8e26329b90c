"""Start a command that does not outlive who started it: ``python -m sample.tether COMMAND [ARGUMENT ...]``.

The fleet ends what it started. This is for the one case in which it cannot: when it is itself killed with SIGKILL. On
Linux the kernel then sends SIGTERM to the command; elsewhere this only runs it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h; it survives execve


def main() -> None:
    """Tie this process to its parent, then become the command."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the tie was made
            sys.exit(1)
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()
