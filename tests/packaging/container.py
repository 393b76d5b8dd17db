#!/usr/bin/env python3
"""Runs ACE in a folder that holds only the files of the container image: container.py ACE"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import root as system
from root import run
from service import REPOSITORY, Systemd

AS_USER = ["chroot", "--userspec=65532:65532"]
ACE = ["/usr/bin/ace", "--config", "/etc/ace/ace.toml"]


def main():
    system.enter()
    folder = Path(tempfile.mkdtemp(prefix="ace-container-"))
    root = folder / "rootfs"
    try:
        run(REPOSITORY / "packaging/rootfs.sh", sys.argv[1], root)
        files = [path for path in root.rglob("*") if path.is_file()]
        programs = [path for path in files if path.stat().st_mode & 0o111 and ".so" not in path.name]
        if programs != [root / "usr/bin/ace"]:
            sys.exit(f"more than one program: {programs}")
        for name in ("proc", "dev"):
            (root / name).mkdir()
        # What every container runtime mounts.
        for name in ("proc", "dev"):
            run("mount", "--bind", f"/{name}", root / name)
        done = run(*AS_USER, root, *ACE, "token", "create", "test", "--scope", "send,read,admin")
        token = done.stdout.strip().splitlines()[-1]
        run(*AS_USER, root, *ACE, "check")
        systemd = Systemd(("/tmp/notify", root / "tmp/notify"))
        systemd.start([*AS_USER, root, *ACE, "serve"])
        status = systemd.submit(1, token=token)
        systemd.stop()
        if status != 202:
            sys.exit(f"a message was answered with {status}")
        print(f"ok: the image's {len(files)} files are enough to check, to make tokens and to serve")
    finally:
        for name in ("proc", "dev"):
            subprocess.run(["umount", root / name], stderr=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)


main()
