#!/usr/bin/env python3
"""Checks the alerts and the dashboard: promtool accepts the rules, and a server has every metric that they name: monitoring.py ACE"""

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from service import REPOSITORY, Systemd
from system_calls import CONFIG

RULES = REPOSITORY / "packaging/prometheus/ace.rules.yml"
DASHBOARD = REPOSITORY / "packaging/grafana/ace.json"
NAME = re.compile(r"\bace_[a-z_]+")
# Series that only a policy, an outage or a fault starts. docs/serving.md lists their names.
LATER = {"ace_destination_waiting", "ace_plugin_faults_total", "ace_plugin_rejected", "ace_policy_verdicts_total",
         "ace_task_failures_total"}


def used():
    """The names of metrics in expressions, without the suffixes of histograms."""
    expressions = re.findall(r"expr: (.*?)\n        (?:for|labels):", RULES.read_text(), re.DOTALL)
    dashboard = json.loads(DASHBOARD.read_text())
    expressions += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 20, expressions
    return {re.sub("_bucket$", "", name) for expression in expressions for name in NAME.findall(expression)}


def served(ace):
    """The names of metrics of a server that has sent a message to a mail server that is down, and was reloaded."""
    with tempfile.TemporaryDirectory(prefix="ace-metrics-") as name:
        folder = Path(name)
        (folder / "ace.toml").write_text(CONFIG)
        (folder / "ace.toml").chmod(0o644)
        systemd = Systemd((str(folder / "notify"), folder / "notify"))
        systemd.start([Path(ace).resolve(), "serve"], cwd=folder)
        first = systemd.submit(1)
        systemd.service.send_signal(signal.SIGHUP)
        systemd.expect("RELOADING=1")
        systemd.expect("READY=1")
        rejected = {**json.loads((REPOSITORY / "templates/samples/passwordreset.json").read_text()), "name": "unknown"}
        assert first == 202 and systemd.submit(2, message=rejected) == 202
        until, names = time.monotonic() + 30, set()
        while not {"ace_destination_up", "ace_settled_total"} <= names and time.monotonic() < until:
            time.sleep(0.2)
            with urllib.request.urlopen(f"http://127.0.0.1:{systemd.port}/metrics") as response:
                series = [line.split("{")[0].split(" ")[0] for line in response.read().decode().splitlines() if not line.startswith("#")]
                names = {re.sub("_(bucket|sum|count)$", "", name) for name in series}
        systemd.stop()
        return names


def main():
    subprocess.run(["promtool", "check", "rules", RULES], check=True)
    documented = set(NAME.findall((REPOSITORY / "docs/serving.md").read_text()))
    assert LATER <= documented, LATER - documented
    missing = used() - served(sys.argv[1]) - LATER
    if missing:
        sys.exit(f"a server has no such metrics: {sorted(missing)}")
    print("ok: a server has every metric of the alerts and the dashboard")


main()
