"""Counts that all processes and machines share, in Redis; what cannot be asked is done without."""

import logging
import time
from contextlib import suppress
from threading import Lock, Thread
from typing import Any

from limits.storage import RedisStorage
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

log = logging.getLogger(__name__)

TIMEOUT = 0.05  # seconds that a request waits for Redis, once an outage
PAUSE = 1.0  # seconds between two attempts to reach it again
# What the address says itself, as ?socket_timeout=0.2, goes before.
OPTIONS: dict[str, Any] = {
    "socket_timeout": TIMEOUT,
    "socket_connect_timeout": TIMEOUT,
    "max_connections": 10_000,  # beyond requests at once: to run out of them would be an error
    "retry": Retry(NoBackoff(), 0),
    "protocol": 2,  # it needs no greeting, which would be one more wait
    "driver_info": None,
}


class SharedCounts:
    """Counters in Redis. `outages` counts how often it went away, `is_away` tells that it is."""

    def __init__(self, url: str) -> None:
        self.is_away = False
        self.outages = 0
        self._lock = Lock()
        self._storage = RedisStorage(url, key_prefix="tasks", **OPTIONS)

    def add(self, key: str, seconds: int, amount: int) -> int | None:
        """Add to a counter that lives for `seconds`; return what it is then, None while away."""
        if self.is_away:
            return None
        try:
            return self._storage.incr(key, seconds, amount)
        except RedisError as error:
            self._leave(error)
            return None

    def _leave(self, error: RedisError) -> None:
        with self._lock:
            if self.is_away:
                return
            self.is_away = True
            self.outages += 1
        log.warning("Redis is away, so each process counts for itself: %s", error)
        Thread(target=self._await_return, name="redis", daemon=True).start()

    def _await_return(self) -> None:
        while self.is_away:
            time.sleep(PAUSE)
            with suppress(RedisError):  # a write: one that is read-only or full answers a ping
                self._storage.incr("probe", 1)
                self.is_away = False
        log.warning("Redis is back")
