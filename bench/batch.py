"""What a batch of a hundred operations costs beside single requests, and changes beside a get."""

import json
from dataclasses import dataclass
from statistics import median
from typing import Any

from flask import Flask

from app import create_app
from bench.cpu import Cost, environ, wsgi_cost
from bench.postgres import api_url, connect, fill, query, tasks_of
from bench.traffic import ORIGIN, SECRET, sign_token
from config import Settings

USERS = 1000
TASKS_PER_USER = 100
CALLER = "user-0"
NOTHING_NEW = "changes with nothing new"


@dataclass(frozen=True, slots=True)
class Call:
    """A request in the form that `environ` reads."""

    method: str
    path: str
    body: str
    token: str


def measure_batch(url: str, rounds: int) -> dict[str, Cost]:
    """Measure one request of each kind, in turns; the median of the rounds."""
    settings = {
        "DATABASE_URL": api_url(url),
        "BETTER_AUTH_SECRET": SECRET,
        "CORS_ORIGINS": ORIGIN,
        "RATE_LIMIT": "off",
    }
    app = create_app(Settings.load(settings))
    with connect(url) as connection:
        connection.execute(query("never_wait_for_disk"))
        fill(connection, USERS, TASKS_PER_USER)
        ids = [task_id for _, task_id in tasks_of(connection, [CALLER])]
    calls = calls_on(ids)
    costs: dict[str, list[Cost]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, (call, status, key) in calls.items():
            environs = [environ(call) for _ in range(10)]  # type: ignore[arg-type]
            if name == NOTHING_NEW:
                cursor = newest_cursor(app, call)
                for each in environs:
                    each["QUERY_STRING"] = f"since={cursor}"
            if key:
                for index, each in enumerate(environs):
                    each["HTTP_IDEMPOTENCY_KEY"] = f"{name.replace(' ', '-')}-{number}-{index}"
            costs[name].append(wsgi_cost(app, environs, status))
    app.extensions["database"].close()
    # The first round warms up.
    return {
        name: Cost(median(cost.cpu for cost in each[1:]), median(cost.elapsed for cost in each[1:]))
        for name, each in costs.items()
    }


def newest_cursor(app: Flask, call: Call) -> str:
    """Read all changes, and return the cursor behind the last one."""
    query, client = {}, app.test_client()
    while True:
        headers = {"Authorization": f"Bearer {call.token}"}
        answer: Any = client.get(call.path, headers=headers, query_string=query).json
        query = {"since": answer["next"]}
        if not answer["more"]:
            return str(answer["next"])


def calls_on(ids: list[int]) -> dict[str, tuple[Call, int, bool]]:
    """Make the requests that are measured: call, status, whether each has a key of its own."""
    path, token = f"/api/{CALLER}/tasks", sign_token(CALLER)
    task = {"title": "Buy milk", "description": "Two litres, and not the sour one."}

    def batch(operations: list[dict[str, Any]]) -> Call:
        return Call("POST", f"{path}/batch", json.dumps({"operations": operations}), token)

    create = Call("POST", path, json.dumps(task), token)
    creates = batch([{"op": "create", "task": task}] * 100)
    patches = batch([{"op": "patch", "id": task_id, "task": task} for task_id in ids])
    completes = batch([{"op": "complete", "id": task_id} for task_id in ids])
    return {
        "get": (Call("GET", f"{path}/{ids[0]}", "", token), 200, False),
        NOTHING_NEW: (Call("GET", f"{path}/changes", "", token), 200, False),
        "create": (create, 201, False),
        "create with a key": (create, 201, True),
        "patch": (Call("PATCH", f"{path}/{ids[0]}", json.dumps(task), token), 200, False),
        "patch with a key": (Call("PATCH", f"{path}/{ids[0]}", json.dumps(task), token), 200, True),
        "toggle": (Call("PATCH", f"{path}/{ids[0]}/complete", "", token), 200, False),
        "batch of 100 creates": (creates, 200, False),
        "batch of 100 patches": (patches, 200, False),
        "batch of 100 completions": (completes, 200, False),
        "batch of 100 patches with a key": (patches, 200, True),
    }
