"""No user has all connections of a process: whoever has half of them waits for one of their own."""

from queue import Empty, SimpleQueue


class Turn:
    """A place in a user's line; those in front have a connection, the others wait for one."""

    __slots__ = ("go", "line", "user")

    def __init__(self, user: str, line: list["Turn"]) -> None:
        self.user = user
        self.line = line
        self.go: SimpleQueue[None] | None = None


class Shares:
    """A line for each user who has connections. Without a lock: a list's own methods are atomic."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lines: dict[str, list[Turn]] = {}

    def take(self, user: str, timeout: float) -> Turn | None:
        """Take one of the user's connections; None where there is none in so many seconds."""
        line = self._lines.setdefault(user, [])
        turn = Turn(user, line)
        line.append(turn)
        if len(line) <= self._most:
            return turn
        turn.go = SimpleQueue()
        if line.index(turn) >= self._most:  # nobody has left meanwhile
            try:
                turn.go.get(timeout=timeout)
            except Empty:
                self.give_back(turn)
                return None
        return turn

    def give_back(self, turn: Turn) -> None:
        """Leave the line, and let the one go who is in front now."""
        line = turn.line
        line.remove(turn)
        if len(line) >= self._most:
            if go := line[self._most - 1].go:
                go.put(None)
        elif not line and self._lines.get(turn.user) is line:
            del self._lines[turn.user]
