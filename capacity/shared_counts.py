"""Counts that all processes and machines share, in Redis; while it is away, callers do without."""

import logging
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from math import inf
from threading import Lock, Thread
from typing import Any

from redis import ConnectionPool
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from events import emit

log = logging.getLogger(__name__)

TIMEOUT = 0.05  # seconds that a request waits for Redis, once per outage
CONNECT_TIMEOUT = 1.0  # seconds until it is connected; only this bounds the look-up of its name
PAUSE = 1.0  # seconds between two attempts to reach it again

# Options in REDIS_URL itself, such as ?socket_timeout=0.2, take precedence.
OPTIONS: dict[str, Any] = {
    "socket_timeout": TIMEOUT,
    "socket_connect_timeout": TIMEOUT,
    "max_connections": 10_000,  # more than concurrent requests: running out would be an error
    "protocol": 2,  # it needs no handshake, which would be one more wait
    "driver_info": None,
}

# A counter expires by itself, at most a window after the one that its name holds.
COUNT = """\
local used = redis.call('incrby', KEYS[1], ARGV[2])
if used == tonumber(ARGV[2]) then redis.call('expire', KEYS[1], ARGV[1]) end
return used"""


class SharedCounts:
    """Counters in Redis. `is_away` tells that it cannot be reached."""

    def __init__(self, url: str) -> None:
        self.is_away = False
        self._back_at = -inf
        self._lock, self._connecting = Lock(), Lock()
        self._pool = ConnectionPool.from_url(url, **OPTIONS)

    def add(self, key: str, seconds: int, amount: int) -> int | None:
        """Add to a counter that lives for `seconds`; return its value then, None while away."""
        if self.is_away:
            return None
        asked_at = time.monotonic()
        try:
            # One by one: with TLS it takes 30 ms of CPU, and another's may be free by then.
            with self._connecting, at_most(CONNECT_TIMEOUT):
                if self.is_away:
                    return None
                connection = self._pool.get_connection()
            return self._ask(connection, key, seconds, amount)
        except Exception as error:  # noqa: BLE001 - a look-up's RuntimeError or UnicodeError, too
            self._leave(error, key, asked_at)
            return None

    def _ask(self, connection: Any, key: str, seconds: int, amount: int) -> int:
        """Use a connection of the pool directly: the client's commands cost twice as much."""
        try:
            connection.send_command("EVAL", COUNT, 1, f"tasks:{key}", seconds, amount)
            try:
                used: int = connection.read_response(disconnect_on_error=False)
            except RedisTimeoutError:
                # Where this process was stopped meanwhile, the timeout is seen before the reply.
                if not connection.can_read():
                    raise
                used = connection.read_response(disconnect_on_error=False)
        except BaseException:  # a reply that is still to come is not the next one's
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)
        return used

    def _leave(self, error: Exception, key: str, asked_at: float) -> None:
        with self._lock:
            if self.is_away or asked_at < self._back_at:  # the failure is of an outage that is over
                return
            self.is_away = True
        emit("redis_failed")
        cause = cause_of(error)
        log.warning("Redis is away, so each process counts for itself: %s", cause)
        try:
            Thread(target=self._await_return, args=[key, cause], name="redis", daemon=True).start()
        except RuntimeError:  # the system has no more threads: the next failure tries again
            self.is_away = False

    def _await_return(self, key: str, cause: str) -> None:
        """Add nothing to what could not be counted until that succeeds: others may be elsewhere.

        It is a write: a read-only or full Redis answers a ping. A counter it makes lasts a second.
        """
        told = {cause}  # often only that the connection was lost: the next one says why
        while self.is_away:
            time.sleep(PAUSE)
            try:
                self._ask(self._pool.get_connection(), key, 1, 0)
            except Exception as error:  # noqa: BLE001 - as in `add`
                emit("redis_failed")
                if (cause := cause_of(error)) not in told:
                    told.add(cause)
                    log.warning("Redis is still away: %s", cause)
            else:
                self._back_at = time.monotonic()
                self.is_away = False
        log.warning("Redis is back")


def cause_of(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"  # the text of a MovedError is only where to


def at_most(seconds: float) -> AbstractContextManager[Any]:
    """End the block with a RedisError after so long; only gevent can end a look-up that hangs."""
    if "gevent.monkey" in sys.modules and sys.modules["gevent.monkey"].is_module_patched("socket"):
        from gevent import Timeout  # type: ignore[import-untyped]

        return Timeout(seconds, RedisError(f"not connected within {seconds} s"))  # type: ignore[no-any-return]
    return nullcontext()
