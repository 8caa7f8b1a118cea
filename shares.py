"""No user has all of what a process shares out: whoever has as much as one may waits for a turn.

Connections to PostgreSQL, and places for files that arrive and large answers that are received.
"""

from queue import Empty, SimpleQueue

LINES = 64  # users whose hashes meet stand in one line, and are told apart there


class Turn:
    """A place in a line; those of a user who are in front have what they want, the others wait."""

    __slots__ = ("go", "line", "user")

    def __init__(self, user: str, line: list["Turn"]) -> None:
        self.user = user
        self.line = line
        self.go: SimpleQueue[None] | None = None


class Shares:
    """Lines of users, without a lock: to append, to remove and to copy is one step of a list each.

    Lines are never taken away, as somebody may be about to join one.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lines: list[list[Turn]] = [[] for _ in range(LINES)]

    def take(self, user: str, timeout: float) -> Turn | None:
        """Take one of the user's turns; None where there is none in so many seconds."""
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
        """Leave the line, and let those go who are in front now; some may have gone already."""
        turn.line.remove(turn)
        for first in self._first(turn):
            if first.go:
                first.go.put(None)

    def _first(self, turn: Turn) -> list[Turn]:
        """Tell who of a turn's user may have theirs."""
        return [each for each in turn.line.copy() if each.user == turn.user][: self._most]
