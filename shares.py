"""No user has all connections of a process: whoever has half of them waits for one of their own."""

from collections import deque
from queue import Empty, SimpleQueue
from threading import Lock

Line = deque[SimpleQueue[None]]


class Shares:
    """How many connections each user has, and their requests that wait for one, in turn."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: dict[str, int] = {}
        self._lines: dict[str, Line] = {}
        self._lock = Lock()

    def take(self, user: str, timeout: float) -> bool:
        """Take one of the user's connections; wait so many seconds at most. Is there one?"""
        with self._lock:
            taken = self._taken.get(user, 0)
            if taken < self._most:
                self._taken[user] = taken + 1
                return True
            my_turn: SimpleQueue[None] = SimpleQueue()
            line = self._lines.setdefault(user, deque())
            line.append(my_turn)
        try:
            my_turn.get(timeout=timeout)
        except Empty:
            with self._lock:
                if my_turn not in line:  # it has come just now
                    return True
                line.remove(my_turn)
            return False
        return True

    def give_back(self, user: str) -> None:
        """Hand a connection on to the first in the user's line."""
        with self._lock:
            if line := self._lines.get(user):
                line.popleft().put(None)
            elif self._taken[user] > 1:
                self._taken[user] -= 1
            else:
                del self._taken[user]
                self._lines.pop(user, None)
