"""What happens that metrics count, in a request or outside one: who tells, and who listens."""

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
    "redis_lost",
    "replica_failed",
    "tasks_completed",
    "tasks_created",
]
Listener = Callable[[Event, str, int], None]
LISTENERS: list[Listener] = []  # none, unless metrics are on
UNTOLD: ContextVar[list[tuple[Event, str, int]] | None] = ContextVar("untold", default=None)


def tell(event: Event, label: str = "", count: int = 1) -> None:
    """Tell the listeners what has happened."""
    untold = UNTOLD.get() if event in {"tasks_created", "tasks_completed"} else None
    if untold is not None:
        untold.append((event, label, count))
        return
    if count:
        for listener in LISTENERS:
            listener(event, label, count)


@contextmanager
def telling_at_the_end() -> Iterator[None]:
    """Hold back events about tasks until the block has ended; drop them if it fails."""
    untold: list[tuple[Event, str, int]] = []
    UNTOLD.set(untold)
    try:
        yield
    finally:
        UNTOLD.set(None)
    for told in untold:
        tell(*told)
