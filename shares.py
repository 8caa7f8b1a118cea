"""Keeps one user from taking all of a process's resources: beyond a share, requests queue.

Used for connections to PostgreSQL (there also with all writes as if of one user), for files and
large bodies being sent, and for large responses being received.
"""

from collections import deque
from queue import Empty, SimpleQueue

QUEUES = 64  # users whose hashes collide share one, and are told apart in it


class Place:
    """A place in a queue; a user's first few hold the resource, and that user's others wait."""

    __slots__ = ("queue", "user", "wake_up")

    def __init__(self, user: str, queue: list["Place"]) -> None:
        self.user = user
        self.queue = queue
        self.wake_up: SimpleQueue[None] | None = None


class Shares:
    """Queues of users that need no lock: a list's append, remove and copy are atomic.

    Queues are never deleted, as somebody may be about to join one.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queues: list[list[Place]] = [[] for _ in range(QUEUES)]
        self.waiting: deque[None] = deque()  # its length is a count that needs no lock

    def acquire(self, user: str, timeout: float) -> Place | None:
        """Take one of the user's places; None if none is free within `timeout` seconds."""
        queue = self._queues[hash(user) % QUEUES]
        place = Place(user, queue)
        queue.append(place)
        try:
            if len(queue) <= self._limit or place in self._holders(place):
                return place
            place.wake_up = SimpleQueue()
            if place not in self._holders(place):  # nobody has left meanwhile
                self.waiting.append(None)
                try:
                    place.wake_up.get(timeout=timeout)
                finally:
                    self.waiting.pop()
        except Empty:
            self.release(place)
            return None
        except BaseException:
            self.release(place)
            raise
        return place

    def release(self, place: Place) -> None:
        """Leave the queue, and wake those now in front; some may have been woken already."""
        place.queue.remove(place)
        for holder in self._holders(place):
            if holder.wake_up:
                holder.wake_up.put(None)

    def _holders(self, place: Place) -> list[Place]:
        """List the places of this place's user that may hold the resource."""
        return [each for each in place.queue.copy() if each.user == place.user][: self._limit]
