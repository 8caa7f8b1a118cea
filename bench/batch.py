"""What a client waits for a batch of a hundred operations, and for changes, beside single ones."""

import http.client
import json
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.load import load, request_bytes
from bench.postgres import connect, fill, tasks_of
from bench.throughput import HOST, Server, plan_line, serving_ours
from bench.traffic import sign_token

USERS = 1000
TASKS_PER_USER = 100
CALLER = "user-0"
NOTHING_NEW = "changes with nothing new"
KEYS = 2000  # more than are used in a turn


@dataclass(frozen=True, slots=True)
class Call:
    """A request in the form that `plan_line` reads."""

    method: str
    path: str
    body: str
    token: str
    has_key: bool = False


def measure_batch(url: str, rounds: int, seconds: float) -> dict[str, float]:
    """Send each kind of request, one after the other, in turns: microseconds until the response."""
    with connect(url) as connection:
        fill(connection, USERS, TASKS_PER_USER)
        ids = [task_id for _, task_id in tasks_of(connection, [CALLER])]
    waits: dict[str, list[float]] = {}
    with serving_ours(url) as server:
        for number in range(rounds + 1):
            for name, call in calls_on(ids).items():
                requests = requests_of(call, server, number, name)
                report = load(requests, server.port, seconds, connections=1)
                if report["refused"] or report["broken"]:
                    raise RuntimeError(f"{name}: not every response was a 2xx: {report}")
                waits.setdefault(name, []).append(report["p50"] * 1e3)
    # The first round warms up.
    return {name: median(each[1:]) for name, each in waits.items()}


def requests_of(call: Call, server: Server, number: int, name: str) -> list[bytes]:
    """Write the requests of one turn, each with an Idempotency-Key of its own if they have one."""
    if name == NOTHING_NEW:
        path = f"{call.path}?since={newest_cursor(call, server)}"
        call = Call(call.method, path, call.body, call.token)
    request = request_bytes(plan_line(call))
    if not call.has_key:
        return [request]
    line, _, rest = request.partition(b"\r\n")
    keys = (f"{name} {number} {index}".replace(" ", "-").encode() for index in range(KEYS))
    return [b"%b\r\nIdempotency-Key: %b\r\n%b" % (line, key, rest) for key in keys]


def newest_cursor(call: Call, server: Server) -> str:
    """Read all changes, and return the cursor behind the last one."""
    path, headers = call.path, {"Authorization": f"Bearer {call.token}"}
    connection = http.client.HTTPConnection(HOST, server.port, timeout=10)
    while True:
        connection.request("GET", path, headers=headers)
        page: Any = json.load(connection.getresponse())
        if not page["more"]:
            connection.close()
            return str(page["next"])
        path = f"{call.path}?since={page['next']}"


def calls_on(ids: list[int]) -> dict[str, Call]:
    path, token = f"/api/{CALLER}/tasks", sign_token(CALLER)
    task = {"title": "Buy milk", "description": "Two litres, and not the sour one."}
    body = json.dumps(task)

    def batch(operations: list[dict[str, Any]], *, has_key: bool = False) -> Call:
        text = json.dumps({"operations": operations})
        return Call("POST", f"{path}/batch", text, token, has_key)

    patches = [{"op": "patch", "id": task_id, "task": task} for task_id in ids]
    return {
        "get": Call("GET", f"{path}/{ids[0]}", "", token),
        NOTHING_NEW: Call("GET", f"{path}/changes", "", token),
        "create": Call("POST", path, body, token),
        "create with a key": Call("POST", path, body, token, has_key=True),
        "patch": Call("PATCH", f"{path}/{ids[0]}", body, token),
        "patch with a key": Call("PATCH", f"{path}/{ids[0]}", body, token, has_key=True),
        "toggle": Call("PATCH", f"{path}/{ids[0]}/complete", "", token),
        "batch of 100 creates": batch([{"op": "create", "task": task}] * 100),
        "batch of 100 patches": batch(patches),
        "batch of 100 completions": batch([{"op": "complete", "id": task_id} for task_id in ids]),
        "batch of 100 patches with a key": batch(patches, has_key=True),
    }
