"""Splits long work of one request into short turns, so that others in its process run between."""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from time import monotonic, sleep
from typing import TypeVar

TURN = 0.01  # seconds
PAUSE = 0.001  # seconds; with 0, gevent looks at its sockets only after fifty iterations

Item = TypeVar("Item")

paused: deque[object] = deque()  # long work of all requests, in the order in which it goes on


def pause() -> None:
    """Let others run. One pause ends per iteration of the loop: if all did, it would be long."""
    me = object()
    paused.append(me)
    try:
        while paused[0] is not me:
            sleep(PAUSE)
        sleep(PAUSE)  # begun after the one before went on, so it ends in another iteration
    finally:
        paused.remove(me)


def in_turns(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items as they are, with a pause whenever making and using them has taken a turn."""
    began = monotonic()
    for item in items:
        yield item
        if monotonic() - began > TURN:
            pause()
            began = monotonic()


def loop_clock() -> Callable[[], float]:
    """Make the function that returns one number in an iteration of gevent's loop, then another.

    The loop's count of iterations, not its time, which each `sleep` sets anew within one; libuv has
    no such count, so there it is the time. Threads have no loop: each call is an iteration.
    """
    if "gevent.monkey" in sys.modules and sys.modules["gevent.monkey"].is_module_patched("select"):
        from gevent import get_hub  # type: ignore[import-untyped]

        def iteration() -> float:
            loop = get_hub().loop
            return float(loop.now() if loop.iteration < 0 else loop.iteration)

        return iteration
    return monotonic
