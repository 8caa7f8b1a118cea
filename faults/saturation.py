"""More clients than can be served: how many responses a second are left, and how long they take."""

import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from itertools import chain, cycle
from math import inf
from pathlib import Path
from selectors import DefaultSelector
from statistics import quantiles
from threading import Event, Thread

import psutil

PROJECT = Path(__file__).parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from processes import Process

from bench.load import Connection, is_complete

WARM_UP = 1.5  # seconds, and one more for every 500 connections


@dataclass(frozen=True, slots=True)
class Load:
    """What a number of connections got, without a pause between response and next request."""

    connections: int
    served: float  # a second
    refused: float
    broken: int
    cpu: float  # milliseconds of the API's workers per served request, refusals included
    p99: float  # seconds that served requests waited
    worst: float  # seconds that any request waited, or was waiting at the end
    worst_probe: float  # seconds that /livez took; infinite where it once failed


def measure(api: Process, requests: list[bytes], connections: int, seconds: float) -> Load:
    """Load the API from a process of its own, and probe it meanwhile."""
    command = [sys.executable, __file__, str(api.port), str(connections), str(seconds)]
    generator = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    done = Event()
    probes: list[float] = []
    cpu: list[float] = []

    def probe() -> None:
        done.wait(warm_up(connections))
        cpu.append(cpu_seconds(api))
        while not done.is_set():
            started = time.monotonic()
            seconds = inf
            with suppress(OSError, HTTPException):
                if api.request("GET", "/livez", timeout=30).status_code == 200:
                    seconds = time.monotonic() - started
            probes.append(seconds)
            done.wait(0.1)

    thread = Thread(target=probe, daemon=True)  # or a Ctrl-C would wait for it for ever
    thread.start()
    output, _ = generator.communicate("\n".join(request.hex() for request in requests))
    cpu.append(cpu_seconds(api))
    done.set()
    thread.join()
    waits: dict[str, list[float]] = json.loads(output)
    served = waits.get("200", []) + waits.get("201", [])
    refused = waits.get("503", [])
    waiting = waits.pop("waiting")
    everything = list(chain.from_iterable(waits.values()))
    return Load(
        connections,
        len(served) / seconds,
        len(refused) / seconds,
        len(everything) - len(served) - len(refused),
        1000 * (cpu[1] - cpu[0]) / max(1, len(served)),
        quantiles(served, n=100)[-1] if len(served) > 1 else inf,
        max(everything + waiting, default=inf),
        max(probes, default=inf),
    )


def complaints(loads: list[Load]) -> Iterator[str]:
    for load in loads:
        if load.broken:
            yield f"{load.connections} connections: {load.broken} requests broke"
        if load.worst_probe == inf:
            yield f"{load.connections} connections: /livez failed"


def cpu_seconds(api: Process) -> float:
    return sum(sum(worker.cpu_times()[:2]) for worker in psutil.Process(api.pid).children())


def warm_up(connections: int) -> float:
    return WARM_UP + connections / 500


def generate(port: int, connections: int, seconds: float) -> None:
    """Print the seconds that each response took, by status, and that others have waited by now."""
    next_request = cycle([bytes.fromhex(line) for line in sys.stdin.read().split()]).__next__
    waits: dict[str, list[float]] = defaultdict(list)
    selector = DefaultSelector()
    for _ in range(connections):
        Connection(port, selector).send(next_request())
    counts_from = time.monotonic() + warm_up(connections)
    while (now := time.monotonic()) < counts_from + seconds:
        for key, _ in selector.select(1):
            connection = key.data
            try:
                response = connection.receive()
            except OSError:  # reset; without a status it counts as broken, as a truncated one
                selector.unregister(key.fileobj)
                connection, response = Connection(port, selector), (0.0, b"")
            if response:
                if now > counts_from:
                    status = response[1][9:12].decode() if is_complete(response[1]) else ""
                    waits[status].append(response[0])
                connection.send(next_request())
    now = time.perf_counter()
    waits["waiting"] = [now - key.data.started for key in selector.get_map().values()]
    print(json.dumps(waits))


if __name__ == "__main__":
    generate(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
