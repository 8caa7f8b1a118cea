"""The alerts, as Prometheus itself reads them; needs promtool (Debian's package prometheus)."""

import subprocess
from pathlib import Path

import pytest
import yaml

from config import PROJECT

RULES = PROJECT / "ops/alerts.yml"
MINUTES = 10


def promtool(*arguments: str | Path) -> str:
    command = ["promtool", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_accepts_the_alerts():
    assert "8 rules found" in promtool("check", "rules", RULES)


FREE = {"tasks_db_pool_waiting": 0, "tasks_db_pool_available": 8, "tasks_db_pool_size": 8}
STUCK = {"tasks_db_pool_waiting": 3, "tasks_db_pool_available": 0, "tasks_db_pool_size": 8}
FETCHED = {"tasks_jwks_fetched_timestamp_seconds": 0}


@pytest.mark.parametrize(
    ("alert", "processes", "firing"),
    [
        ("TasksPoolExhausted", {"1": FREE, "2": STUCK}, ["2"]),
        ("TasksPoolExhausted", {"1": FREE, "2": FREE}, []),
        ("TasksMetricsMissing", {"1": FREE}, []),
        ("TasksMetricsMissing", {"1": FETCHED}, [None]),
    ],
    ids=["one stuck process", "none stuck", "a worker", "no worker"],
)
def test_alert_fires_for_one_stuck_process_and_where_no_worker_runs(
    tmp_path: Path, alert: str, processes: dict[str, dict[str, int]], firing: list[str | None]
):
    series = [
        {"series": f'{name}{{pid="{pid}"}}', "values": f"{value}x{MINUTES}"}
        for pid, values in processes.items()
        for name, value in values.items()
    ]
    [rule] = [
        rule
        for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
        if rule["alert"] == alert
    ]
    expected = [
        {
            "exp_labels": rule["labels"] | ({"pid": pid} if pid else {}),
            "exp_annotations": rule["annotations"],
        }
        for pid in firing
    ]
    at = {"eval_time": f"{MINUTES}m", "alertname": alert, "exp_alerts": expected}
    test = {"interval": "1m", "input_series": series, "alert_rule_test": [at]}
    file = tmp_path / "test.yml"
    file.write_text(yaml.dump({"rule_files": [str(RULES)], "tests": [test]}))
    promtool("test", "rules", file)
