"""Metrics of all workers in one place, on a port of their own, under the names in use."""

import json
import os
import re
import stat
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import get_args

import psycopg
import pytest
import yaml
from batches import CREATE, batch, done
from flask import Flask
from issuer import Issuer, get_me
from processes import free_port
from support import SECRET, User, assert_error

import events
from capacity.rate_limits import Limit
from config import PROJECT, ConfigError, Settings
from database import DatabaseUnavailable
from errors import ApiError
from observability import metrics_server

OPERATIONS = (PROJECT / "docs/operations.md").read_text()
RULES = yaml.safe_load((PROJECT / "ops/alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((PROJECT / "ops/grafana.json").read_text())
OF_PROMETHEUS = set(
    re.findall(
        r"\w+",
        "absent avg_over_time by clamp_min count histogram_quantile increase last_over_time le max"
        " max_over_time on rate sum time topk up and or unless",
    )
)


def test_port_of_clients_is_refused_for_metrics():
    given = {"DATABASE_URL": "postgresql://", "BETTER_AUTH_SECRET": SECRET, "METRICS_PORT": "8000"}
    with pytest.raises(ConfigError, match="METRICS_PORT"):
        Settings.load(given)


def test_request_that_gave_up_waiting_for_a_connection_waits_no_more(app: Flask):
    database = app.extensions["database"]
    with ExitStack() as held:
        with suppress(DatabaseUnavailable):
            while True:
                held.enter_context(database.connection())
        assert database.pool_stats()["requests_waiting"] == 0


def test_batches_imports_and_limits_are_counted_too(alice: User, monkeypatch: pytest.MonkeyPatch):
    heard: list[tuple[str, str, int]] = []
    monkeypatch.setattr(events, "LISTENERS", [lambda *event: heard.append(event)])
    done(alice, CREATE, CREATE)
    assert batch(alice, CREATE, CREATE, {"op": "delete", "id": 99}).status_code == 404
    assert alice.call("POST", "import", json=alice.all()).status_code == 201
    limit = Limit("default", (1, 86400), None)
    limit.count("alice")
    with pytest.raises(ApiError):
        limit.count("alice")
    created = ("tasks_created", "", 2)
    assert heard == [created, created, ("rate_limited", "default", 1)]


def test_whatever_completes_a_task_is_counted_and_nothing_else(
    alice: User, monkeypatch: pytest.MonkeyPatch
):
    first, second, third = (alice.create()["id"] for _ in range(3))
    heard: list[tuple[str, int]] = []
    monkeypatch.setattr(
        events, "LISTENERS", [lambda event, _label, count: heard.append((event, count))]
    )
    for body in ({"title": "x"}, {"completed": True}, {"completed": True}, {"title": "y"}):
        assert alice.call("PATCH", first, json=body).json.keys() > body.keys()
    assert heard == [("tasks_completed", 1)]
    alice.call("PUT", second, json={"title": "x", "completed": True})
    assert heard == [("tasks_completed", 1)] * 2
    heard.clear()
    done(
        alice,
        {"op": "patch", "id": first, "task": {"title": "z"}},
        {"op": "patch", "id": third, "task": {"completed": True}},
        {"op": "complete", "id": second},
        CREATE,
    )
    assert heard == [("tasks_created", 1), ("tasks_completed", 1)]


def test_what_is_done_under_a_key_is_counted_once_it_is_committed(
    alice: User, postgresql: psycopg.Connection, heard: list[str]
):
    postgresql.execute("ALTER TABLE tasks ADD UNIQUE (title) DEFERRABLE INITIALLY DEFERRED")
    postgresql.commit()
    alice.create()
    create = {"json": {"title": "Buy milk"}, "headers": {"Idempotency-Key": "create"}}
    assert_error(alice.call("POST", **create), 409, "conflict")
    postgresql.execute("ALTER TABLE tasks DROP CONSTRAINT tasks_title_key")
    postgresql.commit()
    for _ in range(2):
        task = alice.call("POST", **create).json
        alice.call("PATCH", f"{task['id']}/complete", headers={"Idempotency-Key": "complete"})
    assert heard == ["tasks_created", "tasks_created", "tasks_completed"]


def test_fetch_of_the_issuers_keys_is_counted(issuer: Issuer, gate: Flask, heard: list[str]):
    assert get_me(gate, issuer.token()).status_code == 200
    assert heard == ["jwks_fetched"]


# What operators are given


def exported() -> set[str]:
    """The names as Prometheus sees them, from the source: importing it would need its folder."""
    source = (PROJECT / "observability/metrics.py").read_text()
    kinds = re.findall(r"= (\w+)\(\s*\"(tasks_\w+)\"", source)
    endings = {"Histogram": ["_bucket", "_count", "_sum"], "Counter": [""], "Gauge": [""]}
    return {name + ending for kind, name in kinds for ending in endings[kind]}


def test_every_event_has_its_counter():
    """Without one, the request that emits the event fails, where metrics are on."""
    source = (PROJECT / "observability/metrics.py").read_text()
    counted = re.findall(r'^    "(\w+)": [A-Z]', source, re.MULTILINE)
    assert {*counted, "rate_limited"} == {*get_args(events.Event)}


def names_in(expression: str) -> set[str]:
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|(?:by|on)\s*\([^)]*\)', " ", expression)
    return set(re.findall(r"[a-z_]\w*", bare)) - OF_PROMETHEUS


def expressions() -> list[str]:
    targets = [target for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    return [rule["expr"] for rule in RULES] + [target["expr"] for target in targets]


@pytest.mark.parametrize("expression", expressions())
def test_alerts_and_dashboard_use_names_that_are_exported(expression: str):
    assert names_in(expression)
    assert names_in(expression) <= exported()


def test_every_metric_is_on_the_dashboard_or_in_an_alert():
    used = set().union(*map(names_in, expressions()))
    endings = r"_(bucket|count|sum)$"
    shown = {re.sub(endings, "", name) for name in used}
    assert {re.sub(endings, "", name) for name in exported()} <= shown


def test_a_name_that_is_gone_would_be_found():
    assert names_in('sum(rate(tasks_gone_total{a="b"}[5m])) by (route)') - exported()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alert_has_its_section_in_the_runbook(rule: dict):
    name = rule["alert"]
    heading = f"### {name}\n"
    assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
    assert heading in OPERATIONS
    section = OPERATIONS.partition(heading)[2].partition("\n#")[0]
    for part in ("**Means.**", "**Look at.**", "**Do.**"):
        assert part in section


def test_runbook_has_no_section_of_an_alert_that_is_gone():
    section = OPERATIONS.partition("## Alerts\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^### (\w+)", section, re.MULTILINE)) == {r["alert"] for r in RULES}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where those of the numbers are made, in place of the one for temporary files."""
    monkeypatch.setattr(metrics_server, "Path", lambda _: tmp_path)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    return tmp_path


def test_folder_of_the_numbers_is_emptied_at_a_start_and_kept_at_a_reload(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = Settings(metrics_port=free_port())
    metrics_server.prepare(settings)
    numbers = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"], "counter_1.db")
    numbers.touch()
    assert stat.filemode(numbers.parent.stat().st_mode) == "drwx------"
    metrics_server.prepare(settings)
    assert numbers.exists()
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR")
    metrics_server.prepare(settings)
    assert not numbers.exists()


def test_same_port_of_another_address_has_numbers_of_its_own(folder: Path):
    port = free_port()
    folders = set()
    for host in ("127.0.0.1", "127.0.0.2"):
        metrics_server.prepare(Settings(metrics_host=host, metrics_port=port))
        folders.add(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    assert len(folders) == 2


def test_folder_of_somebody_else_is_refused(folder: Path):
    port = free_port()
    (folder / "theirs").mkdir()
    name = f"tasks-metrics-{os.geteuid()}-127.0.0.1-{port}"
    (folder / name).symlink_to(folder / "theirs")
    with pytest.raises(ConfigError, match="not this user's"):
        metrics_server.prepare(Settings(metrics_port=port))
