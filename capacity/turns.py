"""Splits long work of one request into short turns, so that others in its process run between."""

import sys
from collections.abc import Callable, Iterable, Iterator
from time import monotonic, sleep
from typing import TypeVar

TURN = 0.01  # seconds
PAUSE = 0.001  # seconds; with 0, gevent looks at its sockets only after fifty turns

Item = TypeVar("Item")


def in_turns(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items as they are, with a pause whenever making and using them has taken a turn."""
    began = monotonic()
    for item in items:
        yield item
        if monotonic() - began > TURN:
            sleep(PAUSE)
            began = monotonic()


def turn_clock() -> Callable[[], float]:
    """Make the function that returns one number throughout a turn of gevent's loop, then another.

    Threads run side by side: without gevent, each call is a turn of its own.
    """
    if "gevent.monkey" in sys.modules and sys.modules["gevent.monkey"].is_module_patched("select"):
        from gevent import get_hub  # type: ignore[import-untyped]

        return lambda: float(get_hub().loop.now())
    return monotonic
