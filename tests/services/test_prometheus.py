"""The alerts, as Prometheus itself reads them; needs promtool (Debian's package prometheus)."""

import subprocess

from config import PROJECT


def test_prometheus_accepts_the_alerts():
    command = ["promtool", "check", "rules", PROJECT / "ops/alerts.yml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 rules found" in done.stdout
