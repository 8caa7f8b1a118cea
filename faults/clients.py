"""Clients that write and read until they are told to stop, and remember every response."""

import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from threading import Event, Thread

from processes import Response, request_on, tasks_of
from support import token_for

PATIENCE = 15.0  # seconds for a response
PAUSE = 0.02  # seconds between two requests of a client
RETRY_PAUSE = 0.1  # seconds before the same is tried again

TokenOf = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request: when it was sent and answered, and how: a status, or how it broke."""

    sent: float
    answered: float
    result: str

    @property
    def succeeded(self) -> bool:
        return self.result.startswith("2")


@dataclass
class Client(Thread):
    """A user who creates tasks, each under a title of its own, and reads each back.

    What fails is sent again under the same Idempotency-Key until it succeeds.
    """

    port: int
    user: str
    token_of: TokenOf
    stopping: Event
    outcomes: list[Outcome] = field(default_factory=list)
    acknowledged: dict[str, int] = field(default_factory=dict)  # title: task
    missed: set[object] = field(default_factory=set)  # tasks that could not be read back

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.connection: HTTPConnection | None = None

    __hash__ = Thread.__hash__

    def run(self) -> None:
        while not self.stopping.is_set():
            title = uuid.uuid4().hex
            if response := self.insist("POST", json={"title": title}, key=title):
                task_id = response.json["id"]
                self.acknowledged[title] = task_id
                read = self.insist("GET", task_id)
                if read and read.json["title"] != title:
                    self.missed.add(task_id)

    def insist(
        self, method: str, path: object = "", json: object = None, key: str = ""
    ) -> Response | None:
        """Send a request until it succeeds; None if the task is gone, or the client was stopped."""
        while not self.stopping.wait(PAUSE):
            response = self.call(method, path, json, key)
            if response and 200 <= response.status_code < 300:
                return response
            if response and response.status_code == 404 and method == "GET":
                self.missed.add(path)
                return None
            self.stopping.wait(RETRY_PAUSE)
        return None

    def call(self, method: str, path: object, json: object, key: str) -> Response | None:
        options = {"json": json, "token": self.token_of(self.user)}
        if key:
            options["headers"] = {"Idempotency-Key": f'"{key}"'}
        sent = time.monotonic()
        response = None
        try:
            if self.connection is None:
                self.connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
            response = request_on(self.connection, method, tasks_of(self.user, path), **options)
            result = str(response.status_code)
        except (OSError, HTTPException) as error:
            result = type(error).__name__
            if self.connection:
                self.connection.close()
            self.connection = None
        self.outcomes.append(Outcome(sent, time.monotonic(), result))
        return response


@dataclass
class Crowd:
    """Some clients at once, and what came of it."""

    clients: list[Client]

    @classmethod
    def of(cls, port: int, name: str, count: int, token_of: TokenOf) -> "Crowd":
        stopping = Event()
        return cls([Client(port, f"{name}-{each}", token_of, stopping) for each in range(count)])

    def start(self) -> None:
        for client in self.clients:
            client.start()

    def stop(self) -> None:
        self.clients[0].stopping.set()
        for client in self.clients:
            client.join(PATIENCE + 5)

    def outcomes(self) -> list[Outcome]:
        return [outcome for client in self.clients for outcome in client.outcomes]

    def results(self) -> Counter[str]:
        return Counter(outcome.result for outcome in self.outcomes())

    def worst_wait(self) -> float:
        return max(outcome.answered - outcome.sent for outcome in self.outcomes())

    def back_after(self, moment: float) -> list[float]:
        """Find each client's seconds from `moment` to the first success of what it sent since."""
        firsts: dict[str, float] = defaultdict(lambda: float("inf"))
        for client in self.clients:
            for outcome in client.outcomes:
                if outcome.succeeded and outcome.sent >= moment:
                    firsts[client.user] = min(firsts[client.user], outcome.answered - moment)
        return sorted(firsts[client.user] for client in self.clients)

    def check(self) -> tuple[int, int]:
        """Count the acknowledged tasks that are gone, and those that are there twice."""
        lost = twice = 0
        for client in self.clients:
            client.token_of = token_for  # whatever the fault signed
            response = client.call("GET", "", None, "")
            if response is None or response.status_code != 200:
                raise RuntimeError(f"{client.user} cannot read the list: {client.outcomes[-1]}")
            stored = Counter(task["title"] for task in response.json)
            gone = {task for title, task in client.acknowledged.items() if not stored[title]}
            lost += len(gone | client.missed)
            twice += sum(count > 1 for count in stored.values())
        return lost, twice
