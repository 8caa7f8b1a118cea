"""The requests that are measured: random users and tasks, each with its user's token."""

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import jwt

from bench.postgres import Connection, Task, tasks_of

SECRET = "only-for-the-benchmark-" + "0" * 32
ORIGIN = "http://localhost:3000"  # the default of CORS_ORIGINS: browsers send it with every call

RATE_LIMIT = "1000000000/minute"  # counted, and never reached

READS = ("list", "get")
WRITES = ("create", "update", "toggle", "delete")
OPERATIONS = READS + WRITES
METHODS = dict(zip(OPERATIONS, ("GET", "GET", "POST", "PUT", "PATCH", "DELETE"), strict=True))
STATUSES = dict(zip(OPERATIONS, (200, 200, 201, 200, 200, 204), strict=True))
BODIES = {
    "create": {"title": "Buy milk", "description": "Two litres, and not the sour one."},
    "update": {"title": "Buy milk and bread", "description": "Rye, if they have it."},
}

CALLERS = 200
DELETERS = [f"deleter-{number}" for number in range(CALLERS)]


@dataclass(frozen=True, slots=True)
class Request:
    operation: str
    user_id: str
    task_id: int
    token: str

    @property
    def method(self) -> str:
        return METHODS[self.operation]

    @property
    def path(self) -> str:
        path = f"/api/{self.user_id}/tasks"
        if self.operation not in {"list", "create"}:
            path += f"/{self.task_id}"
        return path + "/complete" if self.operation == "toggle" else path

    @property
    def body(self) -> str:
        fields = BODIES.get(self.operation)
        return json.dumps(fields) if fields else ""


def callers(users: int, first: int = 0) -> list[str]:
    """Pick the users who call, spread evenly over all of them."""
    return [f"user-{number}" for number in range(first, users, max(1, users // CALLERS))][:CALLERS]


def sign_token(user_id: str) -> str:
    now = int(time.time())
    return jwt.encode({"sub": user_id, "iat": now, "exp": now + 24 * 3600}, SECRET, "HS256")


class Traffic:
    """An endless supply of requests; only deletions end, with the tasks made for them."""

    def __init__(self, connection: Connection, users: int) -> None:
        self._random = random.Random(1)
        names, creators = callers(users), callers(users, 1)
        self._tokens = {name: sign_token(name) for name in names + creators + DELETERS}
        self._tasks = tasks_of(connection, names)
        self._new: list[Task] = [(name, 0) for name in creators]  # or measured lists would grow
        self._deletable = tasks_of(connection, DELETERS)
        self._random.shuffle(self._deletable)

    def requests(self, operation: str, count: int) -> list[Request]:
        return [
            Request(operation, user_id, task_id, self._tokens[user_id])
            for user_id, task_id in self._pick(operation, count)
        ]

    def _pick(self, operation: str, count: int) -> Iterator[Task]:
        if operation != "delete":
            tasks = self._new if operation == "create" else self._tasks
            yield from self._random.choices(tasks, k=count)
            return
        picked, self._deletable = self._deletable[:count], self._deletable[count:]
        if len(picked) < count:
            raise RuntimeError("More deletions were asked for than tasks were made for them.")
        yield from picked
