"""The alerts, as Prometheus itself reads them; needs promtool (Debian's package prometheus)."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from config import PROJECT

RULES = PROJECT / "ops/alerts.yml"
MINUTES = 40


def promtool(*arguments: str | Path) -> str:
    command = ["promtool", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_accepts_the_alerts():
    assert "13 rules found" in promtool("check", "rules", RULES)


FREE = {"waiting": 0, "available": 8, "size": 8}
STUCK = {"waiting": 3, "available": 1, "size": 8}
REFUSALS = {
    "tasks_http_request_duration_seconds_count": "0+700",
    'tasks_rate_limited_total{limit="auth-failures"}': "0+600",
}


def refused(reason: str) -> dict[str, str]:
    return REFUSALS | {f'tasks_jwt_refused_total{{reason="{reason}"}}': "0+200"}


def pool(pid: str, state: dict[str, int]) -> dict[str, str]:
    return {f'tasks_db_pool_{name}{{pid="{pid}"}}': f"{value}+0" for name, value in state.items()}


def target(up: int, pool_size: str = "8x0 _") -> dict[str, str]:
    place = '{job="api",instance="a"}'
    return {f"up{place}": f"{up}+0", f"tasks_db_pool_size{place}": pool_size}


def workers(*lives: tuple[int, int]) -> dict[str, str]:
    """Make workers that live from one minute to another."""
    return {
        f'tasks_db_pool_size{{pid="{pid}"}}': f"_x{first} 8x{last - first} stale _"
        for pid, (first, last) in enumerate(lives)
    }


def failing(check: str, times: str = "0+30") -> dict[str, str]:
    return {f'tasks_db_checks_failed_total{{check="{check}"}}': times}


def responses(status: str, times: str = "0+600") -> dict[str, str]:
    return {f'tasks_http_request_duration_seconds_count{{status="{status}"}}': times}


def responses_within(seconds: float, route: str = "/") -> dict[str, str]:
    buckets = {"0.25": seconds <= 0.25, "0.5": seconds <= 0.5, "1": True, "+Inf": True}
    name = "tasks_http_request_duration_seconds_bucket"
    return {
        f'{name}{{route="{route}",le="{bound}"}}': "0+600" if is_within else "0+0"
        for bound, is_within in buckets.items()
    }


def keys(instance: str, failed: str, fetched: str) -> dict[str, str]:
    return {
        f'tasks_jwks_fetches_total{{instance="{instance}",result="failed"}}': failed,
        f'tasks_jwks_fetched_timestamp_seconds{{instance="{instance}"}}': fetched,
    }


CASES = [
    ("TasksPoolExhausted", pool("1", FREE) | pool("2", STUCK), [{"pid": "2"}]),
    ("TasksPoolExhausted", pool("1", FREE) | pool("2", FREE), []),
    ("TasksMetricsMissing", pool("1", FREE), []),
    ("TasksMetricsMissing", keys("a", "0+0", "0+0"), [{}]),
    ("TasksInstanceSilent", target(0), [{"job": "api", "instance": "a"}]),
    ("TasksInstanceSilent", target(1), [{"job": "api", "instance": "a"}]),
    ("TasksInstanceSilent", target(1, "8+0"), []),
    ("TasksInstanceSilent", {'up{job="other",instance="a"}': "0+0"}, []),
    ("TasksWorkersDie", workers((0, 29), (30, 31), (32, 33), (34, 35), (36, 40)), [{}]),
    ("TasksWorkersDie", workers((0, 31), (32, 33), (34, 35), (36, 40)), []),
    ("TasksWorkersDie", workers(*[(0, 38)] * 8, (40, 40)), []),
    ("TasksTokensRefused", refused("signature"), [{}]),
    ("TasksTokensRefused", refused("missing"), []),
    ("TasksTokensRefused", refused("expired"), []),
    ("TasksTokensRefused", refused("keys_unavailable"), []),
    ("TasksReplicaAway", failing("replica_failed"), [{}]),
    ("TasksReplicaAway", failing("probe_failed"), []),
    ("TasksRedisAway", {"tasks_redis_failures_total": "0+60"}, [{}]),
    ("TasksRedisAway", {"tasks_redis_failures_total": "1+0"}, []),
    ("TasksRateLimited", refused("missing"), []),
    ("TasksRateLimited", {'tasks_rate_limited_total{limit="default"}': "0+120"}, [{}]),
    ("TasksErrors", responses("5xx", "0+15") | responses("2xx"), [{}]),
    ("TasksErrors", responses("4xx") | responses("2xx"), []),
    ("TasksSlow", responses_within(1), [{}]),
    ("TasksSlow", responses_within(0.25), []),
    ("TasksSlow", responses_within(1, "/api/{user_id}/tasks/import"), []),
    ("TasksDatabaseUnreachable", failing("probe_failed"), [{}]),
    ("TasksDatabaseUnreachable", failing("probe_failed", "0x37 20 40"), []),
    ("TasksAuditLost", {"tasks_audit_lost_total": "0+10"}, [{}]),
    ("TasksKeysStale", keys("a", "0+0", "0+60") | keys("b", "0+6", "0+0"), [{"instance": "b"}]),
    ("TasksKeysStale", keys("a", "0+6", "0+60"), []),
    ("TasksKeysStale", keys("a", "0+0", "0+0"), []),
]


@pytest.mark.parametrize(
    ("alert", "series", "firing"),
    CASES,
    ids=[
        "one stuck process",
        "none stuck",
        "a worker",
        "no worker",
        "an instance that is gone",
        "an instance whose workers are gone",
        "an instance that is there",
        "a target of others",
        "workers that end again and again",
        "three reloads",
        "a restart whose first worker is there",
        "signed with another secret",
        "without a token",
        "tokens that have expired",
        "issuer that is down",
        "replica that is away",
        "replica that is there",
        "Redis that is away",
        "Redis that is back",
        "no user over a limit",
        "a user over the limit",
        "faults of ours",
        "faults of clients",
        "slow responses",
        "quick responses",
        "long imports",
        "a database that is away",
        "a database that was restarted",
        "entries that are lost",
        "keys of one instance",
        "a fetch that failed and was done again",
        "no issuer",
    ],
)
def test_alert_fires_for_what_it_is_there_for(
    tmp_path: Path, alert: str, series: dict[str, str], firing: list[dict[str, str]]
):
    [rule] = [
        rule
        for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
        if rule["alert"] == alert
    ]
    expected = [
        {"exp_labels": rule["labels"] | labels, "exp_annotations": rule["annotations"]}
        for labels in firing
    ]
    test = {
        "interval": "1m",
        "input_series": [
            {"series": name, "values": f"{values}x{MINUTES}"} for name, values in series.items()
        ],
        "alert_rule_test": [
            {"eval_time": f"{MINUTES}m", "alertname": alert, "exp_alerts": expected}
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.dump({"rule_files": [str(RULES)], "tests": [test]}))
    promtool("test", "rules", file)


def test_share_that_fails_is_shown_also_where_nothing_has_failed(tmp_path: Path):
    panels = json.loads((PROJECT / "ops/grafana.json").read_text())["panels"]
    [panel] = [panel for panel in panels if panel["title"].startswith("Share that fails")]
    expression = panel["targets"][0]["expr"].replace("$__rate_interval", "5m")
    counts = {("/a", "2xx"): "0+60x9", ("/a", "5xx"): "0+20x9", ("/b", "2xx"): "0+60x9"}
    name = "tasks_http_request_duration_seconds_count"
    shares = [{"labels": '{route="/a"}', "value": 0.25}, {"labels": '{route="/b"}', "value": 0}]
    test = {
        "interval": "1m",
        "input_series": [
            {"series": f'{name}{{route="{route}",status="{status}"}}', "values": values}
            for (route, status), values in counts.items()
        ],
        "promql_expr_test": [{"expr": expression, "eval_time": "9m", "exp_samples": shares}],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.dump({"rule_files": [str(RULES)], "tests": [test]}))
    promtool("test", "rules", file)


def test_every_alert_has_a_case_in_which_it_fires():
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    assert {alert for alert, _, firing in CASES if firing} == {rule["alert"] for rule in rules}


def test_every_alert_has_its_section_in_operations_and_goes_where_the_others_go():
    text = (PROJECT / "docs/operations.md").read_text()
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    assert re.findall(r"^### (Tasks\w+)$", text, re.MULTILINE) == [each["alert"] for each in rules]
    for rule in rules:
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"page", "ticket"}
