"""What happens that metrics count, in a request or outside one: who emits, and who listens."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

Event = Literal[
    "audit_lost",
    "connection_stale",
    "jwks_failed",
    "jwks_fetched",
    "probe_failed",
    "rate_limited",
    "redis_failed",
    "replica_failed",
    "tasks_completed",
    "tasks_created",
]
Listener = Callable[[Event, str, int], None]
LISTENERS: list[Listener] = []  # none, unless metrics are on
DEFERRED: ContextVar[list[tuple[Event, str, int]] | None] = ContextVar("deferred", default=None)


def emit(event: Event, label: str = "", count: int = 1) -> None:
    """Tell the listeners what has happened."""
    deferred = DEFERRED.get() if event.startswith("tasks_") else None
    if deferred is not None:
        deferred.append((event, label, count))
        return
    if count:
        for listener in LISTENERS:
            listener(event, label, count)


@contextmanager
def deferring_task_events() -> Iterator[None]:
    """Hold back events about tasks until the block has ended; drop them if it fails."""
    deferred: list[tuple[Event, str, int]] = []
    DEFERRED.set(deferred)
    try:
        yield
    finally:
        DEFERRED.set(None)
    for event in deferred:
        emit(*event)
