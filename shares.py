"""Keeps one user from taking all of a process's resources: beyond a share, requests queue.

Used for connections to PostgreSQL, for files being sent and for large answers being received.
"""

from queue import Empty, SimpleQueue

LINES = 64  # queues; users whose hashes collide share one, and are told apart in it


class Turn:
    """A place in a queue; a user's first few hold the resource, that user's others wait."""

    __slots__ = ("go", "line", "user")

    def __init__(self, user: str, line: list["Turn"]) -> None:
        self.user = user
        self.line = line
        self.go: SimpleQueue[None] | None = None


class Shares:
    """Queues of users, without a lock: a list's append, remove and copy are atomic.

    Queues are never deleted, as somebody may be about to join one.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lines: list[list[Turn]] = [[] for _ in range(LINES)]

    def take(self, user: str, timeout: float) -> Turn | None:
        """Take one of the user's turns; None if none is free within `timeout` seconds."""
        line = self._lines[hash(user) % LINES]
        turn = Turn(user, line)
        line.append(turn)
        if len(line) <= self._most or turn in self._first(turn):
            return turn
        turn.go = SimpleQueue()
        if turn not in self._first(turn):  # nobody has left meanwhile
            try:
                turn.go.get(timeout=timeout)
            except Empty:
                self.give_back(turn)
                return None
        return turn

    def give_back(self, turn: Turn) -> None:
        """Leave the queue, and wake those now in front; some may have been woken already."""
        turn.line.remove(turn)
        for first in self._first(turn):
            if first.go:
                first.go.put(None)

    def _first(self, turn: Turn) -> list[Turn]:
        """List the turns of this turn's user that may hold the resource."""
        return [each for each in turn.line.copy() if each.user == turn.user][: self._most]
