#!/usr/bin/env python3
"""Checks that a server needs no system call that ace.service forbids: system_calls.py ACE

The server compiles a plugin, sends a message, reloads and stops under strace.
"""

import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from service import REPOSITORY, Systemd

CONFIG = f"""
template-dirs = ["{REPOSITORY}/templates"]
cache-dir = "cache"
enabled-channels = ["django_email"]
enabled-policies = []
[mailer]
default-from = "a@example.com"
[relays.main]
kind = "smtp"
host = "127.0.0.1"
port = 9
tls = "none"
[keyvalue]
database = "keyvalue.db"
[plugins.django_email]
grants = {{ mailer = true }}
"""


def members(group):
    """The system calls of a group, and of the groups in it."""
    text = subprocess.run(["systemd-analyze", "syscall-filter", group], text=True, capture_output=True, check=True).stdout
    found = set()
    for line in text.splitlines()[1:]:
        name = line.strip()
        if name.startswith("@"):
            found |= members(name)
        elif name and not name.startswith("#"):
            found.add(name)
    return found


def allowed():
    names = set()
    for line in (REPOSITORY / "packaging/systemd/ace.service").read_text().splitlines():
        if line.startswith("SystemCallFilter="):
            value = line.partition("=")[2]
            for group in value.lstrip("~").split():
                names = names - members(group) if value.startswith("~") else names | members(group)
    return names


def main():
    with tempfile.TemporaryDirectory(prefix="ace-calls-") as name:
        folder = Path(name)
        (folder / "ace.toml").write_text(CONFIG)
        systemd = Systemd((str(folder / "notify"), folder / "notify"))
        ace = str(Path(sys.argv[1]).resolve())
        # With -D, the server has the process id that the shell had.
        systemd.start(["strace", "-D", "-f", "-qq", "-o", folder / "trace", ace, "serve"], cwd=folder)
        assert systemd.submit(1) == 202
        time.sleep(2)
        systemd.service.send_signal(signal.SIGHUP)
        systemd.expect("RELOADING=1")
        systemd.expect("READY=1")
        systemd.stop()
        time.sleep(1)
        calls = set(re.findall(r"^\d+ +(?:<\.\.\. )?([a-z0-9_]+)[( ]", (folder / "trace").read_text(), re.MULTILINE))
    forbidden = calls - allowed() - {"resumed"}
    if forbidden or len(calls) < 50:
        sys.exit(f"ace.service forbids system calls that the server makes: {sorted(forbidden)} of {len(calls)}")
    print(f"ok: ace.service allows the {len(calls)} system calls of a server")


if __name__ == "__main__":
    main()
