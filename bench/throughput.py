"""Requests a second over HTTP, beside floor and peer: same PostgreSQL, same data, in turns."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.memory import Memory, measure_memory
from bench.postgres import PROJECT, api_url, connect, fill, query
from bench.traffic import OPERATIONS, ORIGIN, RATE_LIMIT, SECRET, STATUSES, Request, Traffic

HOST = "127.0.0.1"
CONNECTIONS = 16
PROCESSES = 2
USERS = 10_000
TASKS_PER_USER = 20
STARTING = 30  # seconds that a server may take
STOPPING = 15

OURS = "Flask, SQL files, gunicorn"
FLOOR = "bare Flask, psycopg's cursor, gunicorn"
PEER = "FastAPI, SQLModel, Uvicorn"
PEERS = Path(__file__).parent / "peers"


@dataclass(frozen=True, slots=True)
class Server:
    pid: int
    port: int


@dataclass(frozen=True, slots=True)
class Speed:
    requests_per_second: float
    p50: float  # milliseconds
    p99: float


Speeds = dict[str, Speed]  # by operation


@dataclass(frozen=True, slots=True)
class Throughput:
    speeds: dict[str, Speeds]  # by server
    memory: dict[str, Memory | None]


def measure_throughput(url: str, url_of_peer: str, rounds: int, seconds: float) -> Throughput:
    """Load each server with each operation, in turns; take the median of the rounds.

    Floor and peer share a database of their own, without the indexes and the triggers that they do
    not use.
    """
    with connect(url_of_peer) as connection:
        connection.execute(query("simplify_for_peer"))
    measured: dict[str, list[Speeds]] = {OURS: [], FLOOR: [], PEER: []}
    memory: dict[str, Memory | None] = {}
    with (
        serving_ours(url) as ours,
        serving_floor(url_of_peer) as floor,
        serving_peer(url_of_peer) as peer,
    ):
        turns = ((OURS, ours, url), (FLOOR, floor, url_of_peer), (PEER, peer, url_of_peer))
        for _ in range(rounds):
            for name, server, place in turns:
                measured[name].append(measure_turn(place, name, server, seconds))
                memory[name] = measure_memory(server.pid)
    speeds = {name: median_speeds(turns) for name, turns in measured.items()}
    return Throughput(speeds, memory)


def measure_turn(url: str, name: str, server: Server, seconds: float) -> Speeds:
    deletions = int(10_000 * seconds)
    with connect(url) as connection:
        fill(connection, USERS, TASKS_PER_USER, deletions)
        traffic = Traffic(connection, USERS)
    for operation in OPERATIONS:
        for request in traffic.requests(operation, 2 * PROCESSES):
            require_success(name, server, request)
    run_load(server.port, traffic.requests("get", 1000), min(1.0, seconds))  # warms up
    speeds = {}
    for operation in OPERATIONS:
        count = deletions - 100 if operation == "delete" else 20_000
        report = run_load(server.port, traffic.requests(operation, count), seconds)
        if report["refused"] or report["broken"]:
            raise RuntimeError(f"{name}, {operation}: not every response was a success: {report}")
        rate = report["requests"] / report["seconds"]
        speeds[operation] = Speed(rate, report["p50"], report["p99"])
    return speeds


def median_speeds(turns: list[Speeds]) -> Speeds:
    return {
        operation: Speed(
            median(turn[operation].requests_per_second for turn in turns),
            median(turn[operation].p50 for turn in turns),
            median(turn[operation].p99 for turn in turns),
        )
        for operation in OPERATIONS
    }


def require_success(name: str, server: Server, request: Request) -> None:
    """Require the exact status and the right body, which the load generator does not check."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=10)
    headers = {
        "Authorization": f"Bearer {request.token}",
        "Content-Type": "application/json",
        "Origin": ORIGIN,
    }
    connection.request(request.method, request.path, request.body or None, headers)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    if response.status != STATUSES[request.operation] or not is_answer(body, request):
        raise RuntimeError(f"{name}, {request.operation}: {response.status} {body}")


def is_answer(body: str, request: Request) -> bool:
    """Tell whether a body has the tasks that were asked for, all of them, with what was sent."""
    if request.operation == "delete":
        return not body
    found = json.loads(body)
    tasks, count = (found, TASKS_PER_USER) if request.operation == "list" else ([found], 1)
    expected = json.loads(request.body or "{}") | {"user_id": request.user_id}
    if request.operation not in {"list", "create"}:
        expected |= {"id": request.task_id}
    return len(tasks) == count and all(expected.items() <= task.items() for task in tasks)


def load_generator() -> tuple[str, list[str]]:
    """Choose wrk where it is installed; hey sends one address and one token only, so never hey."""
    if wrk := shutil.which("wrk"):
        script = str(Path(__file__).parent / "wrk.lua")
        return "wrk", [wrk, "-t1", f"-c{CONNECTIONS}", "--timeout", "10s", "-s", script]
    return "bench/load.py", [sys.executable, "-m", "bench.load"]


def run_load(port: int, requests: list[Request], seconds: float) -> dict[str, float]:
    name, command = load_generator()
    with TemporaryDirectory(prefix="bench-") as folder:
        plan = Path(folder) / "plan"
        plan.write_text("".join(plan_line(request) for request in requests))
        if name == "wrk":
            command += [f"-d{max(1, round(seconds))}", f"http://{HOST}:{port}", str(plan)]
        else:
            command += [str(plan), str(port), str(seconds), str(CONNECTIONS)]
        done = subprocess.run(
            command, cwd=PROJECT, capture_output=True, text=True, check=True, timeout=seconds + 60
        )
    report: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return report


def plan_line(request: Request) -> str:
    return f"{request.method}\t{request.path}\t{request.token}\t{ORIGIN}\t{request.body}\n"


@contextmanager
def serving_ours(url: str) -> Iterator[Server]:
    port = free_port()
    settings = {
        "DATABASE_URL": api_url(url),
        "BETTER_AUTH_SECRET": SECRET,
        "CORS_ORIGINS": ORIGIN,
        "RATE_LIMIT": RATE_LIMIT,
        "MAX_TASKS_PER_USER": "10000000",  # one user's batches create more than the default
        "WEB_CONCURRENCY": str(PROCESSES),
        "API_HOST": HOST,
        "API_PORT": str(port),
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:application"]
    with serving(command, PROJECT, settings, port) as pid:
        yield Server(pid, port)


@contextmanager
def serving_floor(url: str) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "main:app", "--bind", f"{HOST}:{port}"]
    command += ["--workers", str(PROCESSES), "--worker-class", "gevent", "--keep-alive", "130"]
    settings = {"DATABASE_URL": url, "BETTER_AUTH_SECRET": SECRET}
    with serving(command, PEERS / "bare_flask", settings, port) as pid:
        yield Server(pid, port)


@contextmanager
def serving_peer(url: str) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "main:app", "--host", HOST, "--port", str(port)]
    command += ["--workers", str(PROCESSES), "--loop", "uvloop", "--http", "httptools"]
    command += ["--no-access-log", "--log-level", "warning"]
    settings = {"DATABASE_URL": url, "BETTER_AUTH_SECRET": SECRET}
    with serving(command, PEERS / "fastapi_sqlmodel", settings, port) as pid:
        yield Server(pid, port)


@contextmanager
def serving(command: list[str], folder: Path, settings: dict[str, str], port: int) -> Iterator[int]:
    """Run a server until the block ends; show what it wrote if the block fails."""
    with ExitStack() as stack:
        log = Path(stack.enter_context(TemporaryDirectory(prefix="bench-"))) / "log"
        output = stack.enter_context(log.open("w"))
        environ = os.environ | settings
        process = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=output, stderr=subprocess.STDOUT
        )
        stack.callback(stop, process)
        try:
            wait_until_healthy(process, port)
            yield process.pid
        except Exception:
            sys.stderr.write(log.read_text()[-5000:])
            raise


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOPPING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until_healthy(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + STARTING
    while process.poll() is None and time.monotonic() < deadline:
        connection = http.client.HTTPConnection(HOST, port, timeout=1)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except OSError:
            time.sleep(0.1)
        finally:
            connection.close()
    raise RuntimeError("The server did not become healthy.")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
    return port
