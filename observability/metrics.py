"""Prometheus metrics; imported only where METRICS_PORT is set.

Each process writes its numbers to files of its own, and metrics_server.py adds them up.
"""

from functools import cache
from threading import Thread
from time import sleep
from typing import get_args

from prometheus_client import Counter, Gauge, Histogram

from auth import MESSAGE_OF_REFUSAL
from capacity.rate_limits import LimitName
from config import VERSION
from database import Database
from events import LISTENERS, Event
from trail import METHODS, Trail

SAMPLE_INTERVAL = 5.0  # seconds between two looks at the pool

REQUESTS = Histogram(
    "tasks_http_request_duration_seconds",
    "Requests, by how long their responses took to begin; errors are those of status 5xx",
    ["route", "method", "status"],
    buckets=[0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
)
STATEMENTS = Histogram(
    "tasks_db_query_duration_seconds",
    "Runs of a named statement, by how long they took",
    ["query"],
    buckets=[0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1, 5],
)
CHECKS_FAILED = Counter(
    "tasks_db_checks_failed_total",
    "Connections found stale, times that the server let nobody in, or that the replica failed",
    ["check"],
)
RATE_LIMITED = Counter("tasks_rate_limited_total", "Requests over a limit", ["limit"])
REDIS_FAILURES = Counter("tasks_redis_failures_total", "Attempts to reach Redis that failed")
AUDIT_LOST = Counter("tasks_audit_lost_total", "Entries that the audit could not keep")
JWT_REFUSED = Counter("tasks_jwt_refused_total", "Tokens refused", ["reason"])
JWKS_FETCHES = Counter("tasks_jwks_fetches_total", "Fetches of the issuer's keys", ["result"])
# The time, not the age: it stays right while nobody writes it, even after its process ended.
JWKS_FETCHED = Gauge(
    "tasks_jwks_fetched_timestamp_seconds",
    "When the issuer's keys were last fetched; 0: never",
    multiprocess_mode="max",
)
TASKS_CREATED = Counter("tasks_created_total", "Tasks created")
TASKS_COMPLETED = Counter("tasks_completed_total", "Tasks that a change completed")
BUILD = Gauge("tasks_build_info", "1, with the version", ["version"], multiprocess_mode="livemax")
BUILD.labels(VERSION).set(1)

# Every label is named here, and so at 0 from the start: Prometheus sees no increase where a counter
# first appears as 1.
for limit in get_args(LimitName):
    RATE_LIMITED.labels(limit)
for reason in MESSAGE_OF_REFUSAL:
    JWT_REFUSED.labels(reason)
COUNTER_OF_EVENT: dict[Event, Counter] = {  # of all but "rate_limited", which has a label
    "audit_lost": AUDIT_LOST,
    "connection_stale": CHECKS_FAILED.labels("connection_stale"),
    "jwks_failed": JWKS_FETCHES.labels("failed"),
    "jwks_fetched": JWKS_FETCHES.labels("done"),
    "probe_failed": CHECKS_FAILED.labels("probe_failed"),
    "redis_failed": REDIS_FAILURES,
    "replica_failed": CHECKS_FAILED.labels("replica_failed"),
    "tasks_completed": TASKS_COMPLETED,
    "tasks_created": TASKS_CREATED,
}


# Cached, as looking a label up costs as much as counting; all labels come from closed sets.
requests_of, runs_of = cache(REQUESTS.labels), cache(STATEMENTS.labels)


def count_request(trail: Trail) -> None:
    method: str = trail.environ["REQUEST_METHOD"]
    route = trail.route or "none"  # an unknown path is no label: there is no end of them
    known = method if method in METHODS else "other"
    # A 501 is of the client's making: any client could raise the share that fails.
    status = "501" if trail.status == 501 else f"{trail.status // 100}xx"
    requests_of(route, known, status).observe(trail.seconds_to_response)
    for run in trail.runs:
        runs_of(run.statement).observe(run.seconds)
    if trail.refused:
        JWT_REFUSED.labels(trail.refused).inc()


def count_event(event: Event, label: str, count: int) -> None:
    counter = RATE_LIMITED.labels(label) if event == "rate_limited" else COUNTER_OF_EVENT[event]
    counter.inc(count)
    if event == "jwks_fetched":
        JWKS_FETCHED.set_to_current_time()


LISTENERS.append(count_event)


def watch_pool(database: Database) -> None:
    """Sample the pool from time to time, even while no request ends; per process."""
    # Per process, as one can be stuck alone; made here, or the master would report a pool of 0.
    size = Gauge("tasks_db_pool_size", "Connections", multiprocess_mode="liveall")
    available = Gauge("tasks_db_pool_available", "Free ones", multiprocess_mode="liveall")
    waiting = Gauge(
        "tasks_db_pool_waiting", "Requests that wait for a connection", multiprocess_mode="liveall"
    )

    def watch() -> None:
        while True:
            stats = database.pool_stats()
            size.set(stats["pool_size"])
            available.set(stats["pool_available"])
            waiting.set(stats["requests_waiting"])
            sleep(SAMPLE_INTERVAL)

    Thread(target=watch, name="metrics", daemon=True).start()
