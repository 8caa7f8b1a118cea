"""Child processes that do not outlive their parent."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before any fork


def end_with_parent(how: signal.Signals) -> Callable[[], None] | None:
    """Make a `preexec_fn` that has Linux send `how` to the child when its parent is killed.

    The parent is the thread that starts the child (prctl(2)). Returns None on other systems.
    """
    if LIBC is None:
        return None
    parent = os.getpid()
    prctl = LIBC.prctl

    def ask_kernel() -> None:
        prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(how))
        if os.getppid() != parent:  # it died before the kernel knew
            os._exit(1)

    return ask_kernel
