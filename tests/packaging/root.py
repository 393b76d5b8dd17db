"""A folder that holds a minimal Debian system, made from the files of this one, and programs that run in it.

Needs root, for chroot and mount. Import it only in a process that `enter` has put into a mount namespace of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

# What the scripts of a package may rely on (essential packages), and `passwd`.
PACKAGES = """base-files base-passwd coreutils dash debianutils diffutils findutils grep init-system-helpers libc-bin libc6 libgcc-s1 login
passwd perl-base sed tar""".split()
SKIPPED = ("/usr/share/doc", "/usr/share/man", "/usr/share/locale", "/usr/share/lintian", "/usr/lib/x86_64-linux-gnu/gconv")
PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
GROUP = "root:x:0:\nnogroup:x:65534:\n"


def enter():
    """Runs this program again in a mount namespace of its own, so that nothing stays mounted."""
    if os.geteuid() != 0:
        sys.exit("this test needs root, for chroot")
    if os.environ.get("NAMESPACE_OF_TEST") != "1":
        os.environ["NAMESPACE_OF_TEST"] = "1"
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv])


def run(*command, **options):
    options.setdefault("check", True)
    done = subprocess.run([str(part) for part in command], text=True, capture_output=True, **{**options, "check": False})
    if options["check"] and done.returncode != 0:
        sys.exit(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def libraries(programs):
    """The shared libraries that programs need, with the loader."""
    found = set()
    for program in programs:
        for line in run("ldd", program, check=False).stdout.splitlines():
            path = line.split("=>")[-1].split("(")[0].strip()
            if path.startswith("/"):
                found.add(path)
    return found


def copy(root, path):
    """Copies a file or link, at its real place: /bin, /lib and so on are links to folders in /usr."""
    path = Path(path)
    target = root / str(path.parent.resolve() / path.name).lstrip("/")
    if path.is_dir() and not path.is_symlink():
        target.mkdir(parents=True, exist_ok=True)
    elif path.exists() and not target.is_symlink() and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        run("cp", "-a", path, target)
        if path.is_symlink():
            copy(root, path.resolve())


class Root:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.chmod(0o755)
        for name in ("bin", "sbin", "lib", "lib64"):
            (self.folder / "usr" / name).mkdir(parents=True)
            (self.folder / name).symlink_to(f"usr/{name}")
        for name in ("etc/default", "run", "proc", "dev", "tmp", "root", "var/cache", "var/lib/dpkg/info", "var/lib/dpkg/updates",
                     "var/lib/systemd", "var/log"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "tmp").chmod(0o1777)
        files = [file for package in PACKAGES for file in run("dpkg", "-L", package).stdout.split("\n")]
        files = [file for file in files if file.startswith("/usr/") or file.startswith(("/bin/", "/sbin/", "/lib"))]
        files = [file for file in files if not file.startswith(SKIPPED)]
        programs = [file for file in files if "bin/" in file and os.access(file, os.X_OK) and not os.path.isdir(file)]
        for file in files + sorted(libraries(programs)):
            copy(self.folder, file)
        self.write("etc/passwd", PASSWD)
        self.write("etc/group", GROUP)
        self.write("etc/login.defs", Path("/etc/login.defs").read_text())
        self.write("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")
        self.write("etc/hosts", "127.0.0.1 localhost\n")
        self.write("var/lib/dpkg/status", "".join(run("dpkg-query", "-s", name).stdout + "\n" for name in PACKAGES))
        run("mount", "--bind", "/proc", self.folder / "proc")
        run("mount", "--bind", "/dev", self.folder / "dev")

    def write(self, path, text):
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def dpkg(self, *arguments, **options):
        # Files of other packages that were not copied are no concern of this one.
        return run("dpkg", f"--root={self.folder}", f"--admindir={self.folder}/var/lib/dpkg", "--force-confold", *arguments, **options)

    def chroot(self, *command, **options):
        return run("chroot", self.folder, *command, **options)

    def files(self):
        """Everything in it except what dpkg and the tools for users note for themselves."""
        mounted = (self.folder / "proc", self.folder / "dev")
        noted = ("var/lib/dpkg", "var/log", "etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/.pwd.lock", "tmp")
        found = set()
        for folder, folders, files in os.walk(self.folder):
            folders[:] = [name for name in folders if Path(folder) / name not in mounted]
            for name in folders + files:
                path = str((Path(folder) / name).relative_to(self.folder))
                if not path.startswith(noted):
                    found.add(path)
        return found
