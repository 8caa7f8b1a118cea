"""Metrics of all workers in one place, on a port of their own, as Prometheus scrapes them."""

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, get_args
from urllib.request import urlopen

import processes
import psutil
import psycopg
import pytest
from processes import GREENLETS, Process, free_port, gunicorn, wait_until, wait_until_gone
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families
from support import token_for

from auth import MESSAGE_OF_REFUSAL
from config import PROJECT, VERSION, ConfigError, Settings
from events import Event
from observability import metrics_server

DURATION = "tasks_http_request_duration_seconds"

Labels = dict[str, str]


class Metered(Process):
    """gunicorn with metrics."""

    metrics_port: int

    def scrape(self) -> dict[str, list[tuple[Labels, float]]]:
        with urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as response:
            text = response.read().decode()
        found: dict[str, list[tuple[Labels, float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found

    def total(self, name: str, **labels: str) -> float:
        samples = self.scrape().get(name, [])
        return sum(value for found, value in samples if found.items() >= labels.items())


@pytest.fixture(scope="module")
def api(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Metered]:
    folder = processes.copy_of_project(tmp_path_factory.mktemp("metered"))
    metrics = folder / "observability/metrics.py"
    often = "SAMPLE_INTERVAL = 0.1 "
    metrics.write_text(re.sub(r"SAMPLE_INTERVAL = [\d.]+ ", often, metrics.read_text()))
    with metered(folder, url, free_port(), measure=GREENLETS, WEB_CONCURRENCY=2) as process:
        yield process
        family = process.family()
        assert process.stop() == 0
        wait_until_gone(family, 10)
        assert not list(Path("/dev/shm").glob(f"tasks-metrics-*-{process.metrics_port}"))


@contextmanager
def metered(folder: Path, url: str, port: int, **options: Any) -> Iterator[Metered]:
    with gunicorn(folder, url, METRICS_PORT=port, **options) as process:
        process.__class__ = Metered
        process.metrics_port = port
        wait_until(lambda: can_scrape(process))
        yield process


def can_scrape(process: Metered) -> bool:
    with suppress(OSError):
        return bool(process.scrape())
    return False


def workers(api: Metered) -> list[psutil.Process]:
    """List them, without those that were killed and are not reaped yet."""
    found = []
    for child in psutil.Process(api.pid).children():
        with suppress(psutil.NoSuchProcess):  # a ZombieProcess is one
            if "metrics_server" not in "".join(child.cmdline()):
                found.append(child)
    return found


def test_requests_are_counted_over_all_workers_and_their_replacements(api: Metered):
    of_list = {"route": "/api/{user_id}/tasks", "method": "GET", "status": "2xx"}
    before = api.total(f"{DURATION}_count", **of_list)
    for _ in range(20):
        assert api.call("GET").status_code == 200
    first = workers(api)
    for worker in first:
        worker.kill()
    wait_until(lambda: len(set(workers(api)) - set(first)) == 2)
    wait_until(api.is_live)
    for _ in range(20):
        assert api.call("GET").status_code == 200
    assert api.total(f"{DURATION}_count", **of_list) - before == 40
    assert api.total("tasks_db_query_duration_seconds_count", query="select_tasks") >= 40


def test_counts_outlive_a_reload_and_not_a_killed_server(url: str, tmp_path: Path):
    folder, port = processes.copy_of_project(tmp_path), free_port()
    for how in (signal.SIGKILL, signal.SIGTERM):
        with metered(folder, url, port) as api:
            assert api.total("tasks_created_total") == 0
            api.create()
            [before] = workers(api)
            api.popen.send_signal(signal.SIGHUP)
            wait_until(lambda api=api, before=before: before not in workers(api))
            assert api.total("tasks_created_total") == 1
            family = api.family()
            api.popen.send_signal(how)
            wait_until_gone(family, 10)


def test_pool_is_that_of_the_living_workers(api: Metered):
    def told() -> set[str]:
        return {labels["pid"] for labels, _ in api.scrape().get("tasks_db_pool_size", [])}

    wait_until(lambda: told() == {str(worker.pid) for worker in workers(api)})
    wait_until(lambda: api.total("tasks_db_pool_size") >= 1)
    assert api.total("tasks_db_pool_available") <= api.total("tasks_db_pool_size")


def test_requests_that_wait_for_a_connection_are_told_until_none_waits(api: Metered, url: str):
    def ask_again_and_again(user: str) -> None:
        while not lock.closed:
            api.call("GET", user=user)

    wait_until(lambda: api.total("tasks_db_pool_size") >= 1)
    assert api.total("tasks_db_pool_waiting") == 0
    users = [f"waiting-{number}" for number in range(40)]  # as one gets half of a pool at most
    with ThreadPoolExecutor(len(users)) as pool, psycopg.connect(url) as lock:
        lock.execute("LOCK tasks")
        asking = [pool.submit(ask_again_and_again, user) for user in users]
        wait_until(lambda: api.total("tasks_db_pool_waiting") > 0)
        wait_until(lambda: api.total("tasks_db_pool_available") == 0)
    for each in asking:
        each.result()
    wait_until(lambda: api.total("tasks_db_pool_waiting") == 0)


def test_tasks_created_and_completed_are_counted(api: Metered):
    created, completed = api.total("tasks_created_total"), api.total("tasks_completed_total")
    task_id = api.create()
    for _ in range(3):
        api.call("PATCH", f"{task_id}/complete")
    assert api.total("tasks_created_total") - created == 1
    assert api.total("tasks_completed_total") - completed == 2


def test_refused_tokens_are_counted_by_reason_and_every_reason_begins_at_zero(api: Metered):
    found = {labels["reason"] for labels, _ in api.scrape()["tasks_jwt_refused_total"]}
    assert found == MESSAGE_OF_REFUSAL.keys()
    before = api.total("tasks_jwt_refused_total", reason="expired")
    api.request("GET", "/api/alice/tasks", token=token_for("alice", exp=1))
    assert api.total("tasks_jwt_refused_total", reason="expired") == before + 1
    limits = {labels["limit"] for labels, _ in api.scrape()["tasks_rate_limited_total"]}
    source = (PROJECT / "capacity/rate_limits.py").read_text()
    assert limits == set(re.findall(r'Limit\("([\w-]+)"', source))


def test_paths_and_methods_that_clients_make_up_are_no_labels(api: Metered):
    for number in range(3):
        api.request(f"MADE{number}", f"/made-up-{number}")
    assert api.total(f"{DURATION}_count", route="none", method="other") >= 3
    assert "made-up" not in str(api.scrape())


def test_request_that_gunicorn_refuses_itself_is_counted(api: Metered):
    unread = {"route": "none", "method": "other", "status": "4xx"}
    before = api.total(f"{DURATION}_count", **unread)
    assert api.request("GET", "/", headers={"bad header": "x"}).status_code == 400
    assert api.total(f"{DURATION}_count", **unread) - before == 1


def test_501_that_any_client_can_cause_is_no_error(api: Metered):
    errors = api.total(f"{DURATION}_count", status="5xx")
    coding = {"Transfer-Encoding": "gzip, chunked"}
    assert api.request("POST", "/", headers=coding).status_code == 501
    assert api.total(f"{DURATION}_count", status="501") == 1
    assert api.total(f"{DURATION}_count", status="5xx") == errors


def test_metrics_are_neither_on_the_public_port_nor_at_another_address(api: Metered):
    assert api.request("GET", "/metrics").status_code == 404
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.2", api.metrics_port)) != 0


def test_probe_that_resets_its_connection_writes_nothing(api: Metered):
    for sent in (b"", b"GET /m"):
        with socket.create_connection(("127.0.0.1", api.metrics_port)) as probe:
            probe.sendall(sent)
            time.sleep(0.1)  # until it is waited for
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert can_scrape(api)
    time.sleep(0.1)
    assert "ConnectionResetError" not in api.output()


def test_second_start_on_the_port_is_refused_and_leaves_the_first_ones_numbers(api: Metered):
    settings = Settings(metrics_port=api.metrics_port)
    for begin in (metrics_server.prepare, metrics_server.start):
        with pytest.raises(ConfigError, match="METRICS_PORT"):
            begin(settings)
    assert api.total(f"{DURATION}_count") >= 1


def numbers_after(program: str, folder: Path) -> CollectorRegistry:
    """Run a program as a worker would run, and collect what it counted."""
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    subprocess.run([sys.executable, "-c", program], cwd=PROJECT, env=environment, check=True)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)
    return registry


def test_time_of_the_last_fetch_of_keys_outlives_the_worker_that_did_it(tmp_path: Path):
    program = (
        "import os; from observability import metrics; metrics.count_event('jwks_fetched', '', 1);"
        " from prometheus_client.multiprocess import mark_process_dead as end; end(os.getpid())"
    )
    registry = numbers_after(program, tmp_path)
    assert time.time() - registry.get_sample_value("tasks_jwks_fetched_timestamp_seconds") < 60


COUNTED = {
    "audit_lost": "tasks_audit_lost_total{}",
    "connection_stale": "tasks_db_checks_failed_total{'check': 'connection_stale'}",
    "jwks_failed": "tasks_jwks_fetches_total{'result': 'failed'}",
    "jwks_fetched": "tasks_jwks_fetches_total{'result': 'done'}",
    "probe_failed": "tasks_db_checks_failed_total{'check': 'probe_failed'}",
    "rate_limited": "tasks_rate_limited_total{'limit': 'tombstones'}",
    "redis_failed": "tasks_redis_failures_total{}",
    "replica_failed": "tasks_db_checks_failed_total{'check': 'replica_failed'}",
    "tasks_completed": "tasks_completed_total{}",
    "tasks_created": "tasks_created_total{}",
}
BUILD = {f"tasks_build_info{{'version': '{VERSION}'}}": 1}


def test_each_event_is_counted_under_the_name_that_alerts_look_for(tmp_path: Path):
    assert COUNTED.keys() == set(get_args(Event))
    program = (
        "from events import emit; from observability import metrics;"
        f" [emit(name, 'tombstones', place) for place, name in enumerate({list(COUNTED)}, 1)]"
    )
    families = numbers_after(program, tmp_path).collect()
    samples = [sample for family in families for sample in family.samples if sample.value]
    counted = {f"{each.name}{each.labels}": each.value for each in samples}
    del counted["tasks_jwks_fetched_timestamp_seconds{}"]
    assert counted == BUILD | {name: place for place, name in enumerate(COUNTED.values(), 1)}


def test_time_until_a_response_begins_has_nothing_of_a_slow_download(api: Metered):
    body = [{"title": "x", "description": "😀" * 5000}] * 300
    for _ in range(3):
        assert api.call("POST", "import", json=body, user="carol").status_code == 201
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", api.port))
        client.sendall(
            b"GET /api/carol/tasks/export HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            b"Authorization: Bearer %b\r\n\r\n" % token_for("carol").encode()
        )
        time.sleep(1)
        while client.recv(1 << 20):
            pass
    export = "/api/{user_id}/tasks/export"
    wait_until(lambda: api.total(f"{DURATION}_count", route=export))
    assert api.total(f"{DURATION}_sum", route=export) < 1


def test_metrics_are_served_also_with_pythonsafepath(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    port = free_port()
    with metrics_server.start(Settings(metrics_port=port)) as process:

        def is_over() -> bool:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return True
            return process.poll() is not None

        wait_until(is_over)
        assert process.poll() is None
        process.terminate()
