#!/usr/bin/env python3
"""Installs, runs, upgrades, removes and purges the .deb in a folder with a minimal Debian system.

    tests/packaging/package.py ACE

Nothing in the folder runs systemd: this plays it for the service (service.py), and records what the maintainer scripts ask of it.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import root as system
from root import run
from service import REPOSITORY, Load, Systemd

CONFIG = "/etc/ace/ace.toml"
AS_USER = ["chroot", "--userspec=ace:ace"]
SYSTEMCTL = """#!/bin/sh
echo "$*" >>/run/calls
link() { mkdir -p "/etc/systemd/system/$2.wants" && ln -sf "/usr/lib/systemd/system/$1" "/etc/systemd/system/$2.wants/$1"; }
case "$*" in
    *is-enabled*) echo enabled ;;
    *preset*ace.service) link ace.service multi-user.target && link ace.socket sockets.target ;;
    *preset*ace.socket) link ace.socket sockets.target ;;
esac
"""


class Package:
    def __init__(self, ace, folder):
        self.debs = []
        for version in ("0.1.0", "0.1.1"):
            out = Path(folder) / version
            run(REPOSITORY / "packaging/build.sh", ace, out, version, env={**os.environ, "COMPRESSION": "none"})
            run("sha256sum", "--check", "SHA256SUMS", cwd=out)
            self.debs += out.glob("*.deb")
        self.folder = Path(folder) / "root"
        self.folder.mkdir()
        self.root = system.Root(self.folder)
        (self.folder / "run/systemd/system").mkdir(parents=True)
        self.root.write("usr/bin/systemctl", SYSTEMCTL).chmod(0o755)
        self.before = self.root.files()

    def calls(self):
        """What the scripts asked of systemd since this was called last."""
        file = self.folder / "run/calls"
        text = file.read_text() if file.exists() else ""
        file.unlink(missing_ok=True)
        return text

    def is_enabled(self):
        return (self.folder / "etc/systemd/system/multi-user.target.wants/ace.service").is_symlink()

    def owner(self, path):
        done = self.root.chroot("stat", "-c", "%U:%G %a", path)
        return done.stdout.strip()


def check(condition, what, details=""):
    if not condition:
        sys.exit(f"failed: {what}: {details}")
    print(f"ok: {what}", flush=True)


def install(package):
    package.root.dpkg("--install", package.debs[0])
    check(package.root.chroot("/usr/bin/ace", "--version").stdout.startswith("ace "), "the program runs")
    check(package.owner("/var/lib/ace") == "ace:ace 750", "/var/lib/ace belongs to the user ace")
    check(package.owner("/var/cache/ace") == "ace:ace 700", "/var/cache/ace belongs to the user ace")
    check(package.is_enabled(), "the service is enabled")
    calls = package.calls()
    check("start ace.socket" in calls and "start ace.service" in calls, "the socket and the service are started")
    done = run(*AS_USER, package.folder, "/usr/bin/ace", "--config", CONFIG, "check", check=False)
    check(done.returncode == 0, "the configuration has no problems", done.stderr + done.stdout)


def upgrade(package):
    # Those of the message that is sent.
    shutil.copytree(REPOSITORY / "templates", package.folder / "etc/ace/templates", dirs_exist_ok=True)
    systemd = Systemd(("/run/notify", package.folder / "run/notify"))
    command = [*AS_USER, package.folder, "/usr/bin/ace", "--config", CONFIG, "serve"]
    systemd.start(command)
    check(systemd.submit(1) == 202, "the service accepts messages as its user")
    with (package.folder / "etc/ace/ace.toml").open("a") as config:
        config.write("\n# an edit of the administrator\n")
    loads = [Load(systemd, number * 1_000_000, keeps=number > 2) for number in range(1, 5)]
    time.sleep(1)
    package.root.dpkg("--install", package.debs[1])
    calls = package.calls()
    check("restart ace.service" in calls, "an upgrade restarts the service")
    check("stop" not in calls and "restart ace.socket" not in calls, "an upgrade leaves the socket open")
    systemd.stop()
    systemd.start(command)
    time.sleep(1)
    accepted = [1] + [number for load in loads for number in load.stop()]
    check(True, f"an upgrade under load refuses none of {len(accepted)} requests")
    outbox = package.folder / "var/lib/ace/outbox"
    until = time.monotonic() + 60
    while len(list(outbox.glob("*.eml"))) < len(accepted) and time.monotonic() < until:
        time.sleep(0.1)
    systemd.stop()
    check(len(list(outbox.glob("*.eml"))) == len(accepted), "and loses no message")
    check("an edit of the administrator" in (package.folder / "etc/ace/ace.toml").read_text(), "an edited ace.toml is kept")
    check(package.owner("/var/lib/ace/ace.db") == "ace:ace 600", "the queue belongs to the user ace")


def disabled(package):
    links = list((package.folder / "etc/systemd/system").glob("*.wants/ace.*"))
    for link in links:
        link.unlink()
    package.root.dpkg("--install", package.debs[1])
    check(links and not package.is_enabled(), "an upgrade does not enable what the administrator disabled")


def remove(package):
    package.calls()
    package.root.dpkg("--remove", "ace")
    calls = package.calls()
    check("stop ace.s" in calls, "a removal stops the service")
    check(not (package.folder / "usr/bin/ace").exists(), "a removal deletes the program")
    check((package.folder / "var/lib/ace/ace.db").exists() and (package.folder / "etc/ace/ace.toml").exists(), "and keeps the data")
    package.root.dpkg("--install", package.debs[1])
    package.root.dpkg("--purge", "ace")
    package.calls()
    (package.folder / "run/notify").unlink(missing_ok=True)
    left = package.root.files() - package.before
    # Empty folders of units are shared with other packages.
    left = {path for path in left if not path.startswith(("etc/systemd", "usr/share/", "usr/lib/")) or not (package.folder / path).is_dir()}
    check(not left, "a purge leaves nothing", sorted(left)[:20])
    check("ace:" not in (package.folder / "etc/passwd").read_text() + (package.folder / "etc/group").read_text(), "not even the user")


def main():
    system.enter()
    folder = tempfile.mkdtemp(prefix="ace-package-")
    try:
        package = Package(sys.argv[1], folder)
        for step in (install, upgrade, disabled, remove):
            step(package)
    finally:
        for mounted in ("proc", "dev"):
            run("umount", Path(folder) / "root" / mounted, check=False)
        shutil.rmtree(folder, ignore_errors=True)


main()
