"""Splits long work of one request into short turns, so that others in its process run between."""

from collections.abc import Iterable, Iterator
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
