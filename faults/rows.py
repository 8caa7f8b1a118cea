"""The faults, a row of the table each: what is done to a running API, and for how long."""

import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
from issuer import Behaviour, Issuer, answer_keys, answer_with, drip, hang
from own_postgres import OwnPostgres
from processes import Process, wait_until
from proxy import Proxy, Weather
from support import token_for

from faults.clients import TokenOf

HOLD = 2.0  # seconds that a fault lasts if it does not end by itself
# What may be said to clients; 409 while the server holds what a lost connection began.
ANSWERS = frozenset({"503", "409"})
ENDS = frozenset(  # and where the processes end that clients are connected to
    {"BrokenPipeError", "ConnectionRefusedError", "ConnectionResetError", "RemoteDisconnected"}
)


@dataclass
class Stage:
    """What a fault is done to."""

    own: OwnPostgres
    proxy: Proxy
    issuer: Issuer
    start_api: Callable[[], Process]
    ballast: Path | None  # here the file system of the data can be filled
    redis: subprocess.Popen[bytes] | None
    api: Process = field(init=False)

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.api.pid).children()

    def backends(self) -> list[psutil.Process]:
        """Find the processes of the server that serve clients."""
        return [
            each
            for each in self.own.postmaster().children()
            if "postgres: tasks" in " ".join(each.cmdline())
        ]


Fault = Callable[[Stage], None]


@dataclass(frozen=True, slots=True)
class Row:
    """A fault, run under load until it is over; `token_of` signs for the clients."""

    name: str
    fault: Fault
    by_network: bool = False  # through the proxy
    is_quick: bool = False  # also in --quick
    token_of: TokenOf | None = None  # None: by the shared secret
    errors: frozenset[str] = ANSWERS  # those that may come of it


# PostgreSQL


def kill_server(stage: Stage) -> None:
    stage.own.kill()
    time.sleep(1)
    stage.own.start()


def restart_server(stage: Stage) -> None:
    stage.own.stop()
    stage.own.start()


def freeze_backend(stage: Stage) -> None:
    backend = stage.backends()[0]
    backend.suspend()
    try:
        time.sleep(HOLD)
    finally:
        with suppress(psutil.NoSuchProcess):
            backend.resume()


def freeze_server(stage: Stage) -> None:
    with stage.own.frozen():
        time.sleep(HOLD)


def end_connections(stage: Stage) -> None:
    for _ in range(5):
        stage.own.end_connections()
        time.sleep(0.2)


def take_connections(stage: Stage) -> None:
    with ExitStack() as taken:
        other = taken.enter_context(stage.own.connect())
        for _ in range(3):  # the API is quick to take some back
            stage.own.end_connections("application_name = 'tasks'", by=other)
            with suppress(psycopg.OperationalError):
                while True:
                    taken.enter_context(stage.own.connect())
        time.sleep(HOLD)


def fill_disk(stage: Stage) -> None:
    assert stage.ballast
    with suppress(OSError), stage.ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(64 * 1024))
    try:
        time.sleep(HOLD)
    finally:
        stage.ballast.unlink()


# The network in front of it


def weather(weather: Weather) -> Fault:
    def fault(stage: Stage) -> None:
        if weather is Weather.RESET:
            stage.proxy.reset_all()
        stage.proxy.weather = weather
        time.sleep(HOLD)
        stage.proxy.weather = Weather.FINE

    return fault


# The issuer


def issuer_fails(behaviour: Behaviour | None) -> Fault:
    """Have new workers, without a key in memory, meet an issuer that fails."""

    def fault(stage: Stage) -> None:
        if behaviour:
            stage.issuer.behave = behaviour
        else:
            stage.issuer.go_away()
        reload_workers(stage)
        time.sleep(HOLD)
        if behaviour:
            stage.issuer.behave = answer_keys
        else:
            stage.issuer.come_back()

    return fault


# The API's own processes, its clients, its helpers


def kill_worker(stage: Stage) -> None:
    stage.workers()[0].kill()


def kill_workers(stage: Stage) -> None:
    for worker in stage.workers():
        worker.kill()


def reload_workers(stage: Stage) -> None:
    before = stage.workers()
    stage.api.popen.send_signal(signal.SIGHUP)
    wait_until(lambda: not any(worker.is_running() for worker in before))


def restart_api(stage: Stage) -> None:
    assert stage.api.stop() == 0
    stage.api = stage.start_api()


def clocks_differ(seconds: int) -> TokenOf:
    """Sign as an issuer whose clock is `seconds` ahead of ours, tokens good for five seconds."""

    def token_of(user: str) -> str:
        now = int(time.time()) + seconds
        return token_for(user, iat=now, nbf=now, exp=now + 5)

    return token_of


def nothing(_: Stage) -> None:
    time.sleep(HOLD)


def kill_redis(stage: Stage) -> None:
    assert stage.redis
    stage.redis.kill()
    stage.redis.wait()


def stop_redis(stage: Stage) -> None:
    assert stage.redis
    assert stage.redis.poll() is None  # a signal to one that has ended would do nothing
    stage.redis.send_signal(signal.SIGSTOP)
    time.sleep(HOLD)
    stage.redis.send_signal(signal.SIGCONT)


ROWS = [
    Row("PostgreSQL: killed, started a second later", kill_server, is_quick=True),
    Row("PostgreSQL: restarted", restart_server),
    Row("PostgreSQL: one backend stopped for 2 s", freeze_backend),
    Row("PostgreSQL: all of it stopped for 2 s", freeze_server),
    Row("PostgreSQL: all connections ended, 5 times", end_connections, is_quick=True),
    Row("PostgreSQL: its connections taken by others for 2 s", take_connections),
    Row("disk full for 2 s", fill_disk, by_network=True),
    Row("network: 50 ms each way", weather(Weather.SLOW), by_network=True),
    Row("network: silent for 2 s", weather(Weather.SILENT), by_network=True),
    Row("network: reset for 2 s", weather(Weather.RESET), by_network=True),
    Row(
        "network: cut before each COMMIT",
        weather(Weather.CUT_BEFORE),
        by_network=True,
        is_quick=True,
    ),
    Row("network: cut in each COMMIT's answer", weather(Weather.CUT_AT), by_network=True),
    Row(
        "network: cut after each COMMIT", weather(Weather.CUT_AFTER), by_network=True, is_quick=True
    ),
    Row("a worker killed", kill_worker, is_quick=True, errors=ANSWERS | ENDS),
    Row("all workers killed", kill_workers, errors=ANSWERS | ENDS),
    Row("workers replaced (SIGHUP)", reload_workers),
    Row("stopped (SIGTERM) in mid-request, started again", restart_api, errors=ANSWERS | ENDS),
    Row("issuer's clock 20 s ahead", nothing, token_of=clocks_differ(20)),
    Row("issuer's clock 20 s behind", nothing, token_of=clocks_differ(-20)),
]
ISSUER_ROWS = {
    "is away": issuer_fails(None),
    "hangs": issuer_fails(hang),
    "drips": issuer_fails(drip(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n")),
    "sends HTML": issuer_fails(answer_with(b"<!doctype html><p>One moment")),
}
# Run only if the API uses Redis, and in this order: one that was killed cannot be stopped.
REDIS_ROWS = [
    Row("Redis: stopped for 2 s", stop_redis),
    Row("Redis: killed", kill_redis),
]


def all_rows(issuer: Issuer) -> list[Row]:
    issuers = [
        Row(
            f"key set: the issuer {name}, new workers",
            fault,
            token_of=lambda user: issuer.token(sub=user),
        )
        for name, fault in ISSUER_ROWS.items()
    ]
    return ROWS + issuers + REDIS_ROWS
