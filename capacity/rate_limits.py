"""How much a caller may use, in fixed windows that begin for all callers at once.

Headers: draft-ietf-httpapi-ratelimit-headers-10. 429: RFC 6585, section 4.
"""

import re
import time
from ipaddress import IPv6Address, ip_address, ip_network
from threading import Lock
from typing import Any, Literal

from config import Settings
from errors import ApiError
from events import emit
from setting_parsers import parse_rate
from trail import CURRENT

MAX_COUNTED = 100_000  # callers, about 13 MB; beyond that, counts start afresh
DAY = 24 * 60 * 60  # seconds
# Daily quotas of what outlives its request and does not count towards MAX_TASKS_PER_USER.
KEPT_RESPONSES = 256 * 1024**2  # bytes of responses to requests with an Idempotency-Key
MUCH_KEPT = "Too much is kept under your Idempotency-Keys today; without a key, this can be done."
TOMBSTONES = 200_000  # of tasks deleted for good, kept for ever
MANY_TOMBSTONES = "You have deleted as many tasks for good as a day allows."
HEADERS_KEY = "tasks.rate_limit"  # where headers.py finds a response's headers in the environ
# Some proxies append the client's port, which differs for each connection.
WITH_PORT = re.compile(r"\[(.+)\](?::[0-9]+)?|([0-9.]+):[0-9]+")


LimitName = Literal["default", "auth-failures", "kept-responses", "tombstones"]


class RateLimits:
    """The quotas of each user, and that of each address for failed authentication."""

    def __init__(self, settings: Settings) -> None:
        self.redis = None
        if settings.redis_url:
            from capacity.shared_counts import SharedCounts  # only here: 7 MB that most do without

            self.redis = SharedCounts(settings.redis_url)
        requests, failures = map(parse_rate, (settings.rate_limit, settings.auth_failure_limit))
        self.requests = Limit("default", requests, self.redis)
        self.auth_failures = Limit("auth-failures", failures, self.redis)
        self.kept_responses = Limit("kept-responses", (KEPT_RESPONSES, DAY), self.redis, MUCH_KEPT)
        self.tombstones = Limit("tombstones", (TOMBSTONES, DAY), self.redis, MANY_TOMBSTONES)


class Limit:
    """A quota (an amount, and a window in seconds) that each caller has; None: no limit."""

    def __init__(
        self,
        name: LimitName,
        quota: tuple[int, int] | None,
        shared: Any,
        message: str | None = None,
    ) -> None:
        self.name = name
        self._message = message  # of its 429
        self._is_off = quota is None
        self._quota, self._seconds = quota or (0, 1)
        self._policy = ("RateLimit-Policy", f'"{name}";q={self._quota};w={self._seconds}')
        self._shared = shared
        self._own = Counts()

    def count(self, caller: str, amount: int = 1, environ: dict[str, Any] | None = None) -> None:
        """Count what a caller uses; headers about it go into `environ`, for the response.

        Raises:
            ApiError: 429 where the quota was used up before.
        """
        if self._is_off:
            return
        window, elapsed = divmod(int(time.time()), self._seconds)
        used = self._use(window, caller, amount)
        remaining, wait = max(self._quota - used, 0), self._seconds - elapsed
        if environ is not None:
            left = ("RateLimit", f'"{self.name}";r={remaining};t={wait}')
            environ[HEADERS_KEY] = [self._policy, left]
        if used - amount >= self._quota:
            emit("rate_limited", self.name)
            if self._own.note_refusal(window, caller) and (trail := CURRENT.get()):
                trail.is_first_over_limit = True
            raise ApiError(429, self._message, headers={"Retry-After": str(wait)})

    def require_some(self, caller: str) -> None:
        """Refuse, as `count` does, where the quota is used up; count nothing."""
        self.count(caller, 0)

    def add(self, caller: str, amount: int) -> None:
        """Count what a caller has used already, which can no longer be refused."""
        self._use(int(time.time()) // self._seconds, caller, amount)

    def _use(self, window: int, caller: str, amount: int) -> int:
        if self._shared:
            key = f"{self.name}/{window}/{caller}"
            if (used := self._shared.add(key, self._seconds, amount)) is not None:
                return int(used)
        return self._own.add(window, caller, amount)


class Counts:
    """This process's own counts, of the current window alone."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._window = -1
        self._used: dict[str, int] = {}
        self._refused: set[str] = set()

    def add(self, window: int, caller: str, amount: int) -> int:
        with self._lock:
            self._turn_to(window)
            used = self._used[caller] = self._used.get(caller, 0) + amount
            return used

    def note_refusal(self, window: int, caller: str) -> bool:
        """Return whether it is the caller's first in the window: the audit has one for all."""
        with self._lock:
            self._turn_to(window)
            is_first = caller not in self._refused
            self._refused.add(caller)
            return is_first

    def _turn_to(self, window: int) -> None:
        # A request that read the clock just before this window began must not set it back.
        if (
            window not in {self._window, self._window - 1}
            or len(self._used) + len(self._refused) >= MAX_COUNTED
        ):
            self._window, self._used, self._refused = window, {}, set()


def caller_at(environ: dict[str, Any]) -> str:
    """Name the client's address, or for IPv6 its network: each client has 2^64 addresses there."""
    text: str = environ.get("REMOTE_ADDR", "")
    if found := WITH_PORT.fullmatch(text):
        text = found[1] or found[2]
    try:
        address = ip_address(text)
    except ValueError:  # the peer at a Unix socket has none
        return text
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or ip_network((address, 64), strict=False))
    return text
