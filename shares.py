"""Keeps one user from taking all of a process's resources: beyond a share, requests queue.

Used for connections to PostgreSQL, for files being sent and for large answers being received.
"""

from queue import Empty, SimpleQueue

LINES = 64  # queues; users whose hashes collide share one, and are told apart in it


class Place:
    """A place in a queue; a user's first few hold the resource, that user's others wait."""

    __slots__ = ("go", "line", "user")

    def __init__(self, user: str, line: list["Place"]) -> None:
        self.user = user
        self.line = line
        self.go: SimpleQueue[None] | None = None


class Shares:
    """Queues of users, without a lock: a list's append, remove and copy are atomic.

    Queues are never deleted, as somebody may be about to join one.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lines: list[list[Place]] = [[] for _ in range(LINES)]

    def take(self, user: str, timeout: float) -> Place | None:
        """Take one of the user's places; None if none is free within `timeout` seconds."""
        line = self._lines[hash(user) % LINES]
        place = Place(user, line)
        line.append(place)
        try:
            if len(line) <= self._most or place in self._first(place):
                return place
            place.go = SimpleQueue()
            if place not in self._first(place):  # nobody has left meanwhile
                place.go.get(timeout=timeout)
        except Empty:
            self.give_back(place)
            return None
        except BaseException:
            self.give_back(place)
            raise
        return place

    def give_back(self, place: Place) -> None:
        """Leave the queue, and wake those now in front; some may have been woken already."""
        place.line.remove(place)
        for first in self._first(place):
            if first.go:
                first.go.put(None)

    def _first(self, place: Place) -> list[Place]:
        """List the places of this place's user that may hold the resource."""
        return [each for each in place.line.copy() if each.user == place.user][: self._most]
