"""Do to a running API what production does, and count: `make faults`, or `python faults/run.py`."""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

PROJECT = Path(__file__).parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from issuer import Issuer, make_key
from own_postgres import migrated_on
from processes import copy_of_project, free_port, gunicorn
from proxy import in_front_of
from support import token_for

from children import end_with_parent
from faults.clients import Crowd
from faults.rows import Row, Stage, all_rows
from faults.saturation import Load, complaints, measure

PAGE = PROJECT / "docs" / "faults.md"
CLIENTS = 16
BEFORE = 0.5  # seconds of load before a fault
AFTER = 10.0  # seconds after it until each client must have had a success
DISK = "size=192m"
LOADS = (16, 32, 160, 1600), 3.0, 3  # connections, seconds for each, and rounds
QUICK_LOADS = (16, 160), 1.0, 1


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a row."""

    name: str
    succeeded: int
    errors: dict[str, int]
    unexpected: set[str]
    worst_wait: float
    first: float
    last: float
    lost: int
    twice: int


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small file system there; False where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", str(folder)]
    mounted = False
    with suppress(OSError):
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=False)


@contextmanager
def redis(folder: Path) -> Iterator[subprocess.Popen[bytes] | None]:
    """Run a Redis; None where there is no server to run."""
    if not (program := shutil.which("redis-server")):
        yield None
        return
    command = [program, "--port", "0", "--unixsocket", str(folder / "redis.sock"), "--save", ""]
    die = end_with_parent(signal.SIGTERM)  # it would outlive a run that is killed
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=die)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def stage(folder: Path, issuer: Issuer, *, by_network: bool) -> Iterator[Stage]:
    """Run PostgreSQL, what stands in front of it, and the API."""
    folder.mkdir()
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk(folder / "disk")) if by_network else False
        place = folder / "disk" if disk else folder
        small = ("max_wal_size=64MB", "min_wal_size=32MB") if disk else ()
        own = stack.enter_context(migrated_on(place / "postgres", small))
        proxy, by_proxy = stack.enter_context(in_front_of(own.url))
        url = by_proxy if by_network else own.url
        given = {
            "WEB_CONCURRENCY": 2,
            "BETTER_AUTH_URL": issuer.origin,
            "API_PORT": free_port(),
            "RATE_LIMIT": "100000/second",  # counted, also in Redis, but never reached
        }
        server = None
        if not by_network and (server := stack.enter_context(redis(folder))):
            given["REDIS_URL"] = f"unix://{folder / 'redis.sock'}"
        project = copy_of_project(folder)

        def start_api() -> object:
            return stack.enter_context(gunicorn(project, url, **given))

        ballast = folder / "disk" / "ballast" if disk else None
        made = Stage(own, proxy, issuer, start_api, ballast, server)
        made.api = made.start_api()
        yield made


def run_row(stage: Stage, row: Row) -> Result:
    """Load the API, do the fault, wait until every client is served again, and count."""
    token_of = row.token_of or token_for
    crowd = Crowd.of(stage.api.port, uuid.uuid4().hex[:8], CLIENTS, token_of)
    crowd.start()
    time.sleep(BEFORE)
    row.fault(stage)
    ended = time.monotonic()
    while max(crowd.back_after(ended)) == inf and time.monotonic() < ended + AFTER:
        time.sleep(0.05)
    time.sleep(BEFORE)
    crowd.stop()
    back = crowd.back_after(ended)
    results = crowd.results()
    errors = {name: count for name, count in sorted(results.items()) if name[0] != "2"}
    return Result(
        row.name,
        results.total() - sum(errors.values()),
        errors,
        errors.keys() - row.errors,
        crowd.worst_wait(),
        back[0],
        back[-1],
        *crowd.check(),
    )


def saturate(stage: Stage, connections: Iterable[int], seconds: float, rounds: int) -> list[Load]:
    """Measure each number of connections in turns, as a machine's speed may change meanwhile."""
    requests = []
    for number in range(50):
        user = f"crowd-{number}"
        task_id = stage.api.create(user)
        head = f"Host: 127.0.0.1\r\nAuthorization: Bearer {token_for(user)}\r\n\r\n"
        requests.append(f"GET /api/{user}/tasks/{task_id} HTTP/1.1\r\n{head}".encode())
        requests.append(f"PATCH /api/{user}/tasks/{task_id}/complete HTTP/1.1\r\n{head}".encode())
    turns = [
        [measure(stage.api, requests, count, seconds) for count in connections]
        for _ in range(rounds)
    ]
    return [median_of(loads) for loads in zip(*turns, strict=True)]


def median_of(loads: Sequence[Load]) -> Load:
    """Choose the round that served the median number, with what was worst in any."""
    return replace(
        sorted(loads, key=lambda load: load.served)[len(loads) // 2],
        broken=sum(load.broken for load in loads),
        worst=max(load.worst for load in loads),
        worst_probe=max(load.worst_probe for load in loads),
    )


def table(head: str, cells: Iterable[Sequence[object]]) -> str:
    line = " | ".join(["---"] + ["---:"] * head.count("|"))
    rows = [" | ".join(str(cell) for cell in row) for row in cells]
    return "\n".join(f"| {row} |" for row in [head, line, *rows])


def fault_table(results: list[Result]) -> str:
    head = (
        "fault | succeeded | errors | worst wait, s | first success after, s"
        " | every client's, s | lost | done twice"
    )
    cells = [
        (
            each.name,
            each.succeeded,
            ", ".join(f"{count} {name}" for name, count in each.errors.items()) or "none",
            f"{each.worst_wait:.1f}",
            f"{each.first:.2f}",
            f"{each.last:.2f}",
            each.lost,
            each.twice,
        )
        for each in results
    ]
    return table(head, cells)


def load_table(loads: list[Load]) -> str:
    head = (
        "connections | served a second | of the peak | 503 a second | broken | CPU of the API, ms"
        " | p99 of the served, s | worst wait, s | worst `/livez`, s"
    )
    peak = max(each.served for each in loads)
    cells = [
        (
            each.connections,
            f"{each.served:.0f}",
            f"{each.served / peak:.0%}",
            f"{each.refused:.0f}",
            each.broken,
            f"{each.cpu:.2f}",
            f"{each.p99:.2f}",
            f"{each.worst:.2f}",
            f"{each.worst_probe:.2f}",
        )
        for each in loads
    ]
    return table(head, cells)


PAGE_HEAD = """\
# Faults

What `make faults` did to a running API, and what came of it: real processes, two workers, {clients}
clients that create tasks and read each back, and send what failed again under the same
`Idempotency-Key`. A write counts as lost when it was acknowledged and is gone, or another was read
in its place; as done twice when its title is there twice. "First success after" is counted from the
end of the fault, as is "every client's": when the last of them was served again.

The command fails if a write is lost or done twice, if a client is not served again within
{after:.0f} s, or if one gets an error other than 503, 409 or, where the API's own processes end, a
broken connection.
"""

LOADS_HEAD = """\
Without a pause between a response and the next request, half reads, half writes; the median
of three rounds, with the worst of all.
A broken one, or a `/livez` that fails, fails the command, too.
"""


def run(*, quick: bool) -> tuple[str, list[str]]:
    """Run the rows; return the page and what went wrong."""
    issuer = Issuer(make_key())
    wrong: list[str] = []
    results: list[Result] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
        stack.callback(issuer.go_away)
        rows = [row for row in all_rows(issuer) if row.is_quick or not quick]
        loads: list[Load] = []
        for by_network in (False, True):
            with stage(folder / str(by_network), issuer, by_network=by_network) as on:
                if not by_network:
                    loads = saturate(on, *(QUICK_LOADS if quick else LOADS))
                    print(load_table(loads), end="\n\n", flush=True)
                for row in rows:
                    if row.by_network != by_network:
                        continue
                    if (row.name.startswith("disk") and not on.ballast) or (
                        row.name.startswith("Redis") and not on.redis
                    ):
                        print(f"{row.name}: not run, it cannot be set up here", flush=True)
                        continue
                    results.append(result := run_row(on, row))
                    print(fault_table([result]).splitlines()[-1], flush=True)
    for each in results:
        if each.lost:
            wrong.append(f"{each.name}: {each.lost} writes were lost")
        if each.twice:
            wrong.append(f"{each.name}: {each.twice} writes were done twice")
        if each.unexpected:
            wrong.append(f"{each.name}: it must not lead to {', '.join(sorted(each.unexpected))}")
        if each.last == inf:
            wrong.append(f"{each.name}: a client was not served again within {AFTER:.0f} s")
    wrong += complaints(loads)
    page = [
        PAGE_HEAD.format(clients=CLIENTS, after=AFTER),
        fault_table(results),
        "\n## More clients than can be served\n",
        LOADS_HEAD,
        load_table(loads),
    ]
    return "\n".join(page) + "\n", wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few faults, in half a minute")
    quick = parser.parse_args().quick
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end what was started
    started = time.monotonic()
    page, wrong = run(quick=quick)
    print(f"\n{time.monotonic() - started:.0f} seconds")
    if not quick:
        PAGE.write_text(page)
    sys.exit("\n".join(wrong) or None)


if __name__ == "__main__":
    main()
