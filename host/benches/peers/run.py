#!/usr/bin/env python3
"""Measures edx-ace, smtp-source and ours in turn against one smtp-sink on loopback. See README.md.

    run.py --messages FILE [--ace BINARY --config FILE] [--count N] [--out FILE]
"""
import argparse
import json
import os
import platform
import re
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
# Every child is killed after this long, whatever it does.
CHILD_LIMIT_S = 180
SAMPLE_S = 0.02


class Failed(Exception):
    """Ends the run with a message and a hint."""


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=Path, required=True, help="NDJSON of messages, as contexts.py writes it")
    parser.add_argument("--ace", type=Path, help="our binary; without it only the peers are measured")
    parser.add_argument("--config", type=Path, help="its ace.toml, with @PORT@ and @CONNECTIONS@ where those belong")
    parser.add_argument(
        "--ace-cmd",
        default=os.environ.get("ACE_CMD", "{ace} send --config {config} {messages}"),
        help="how ours is started; default: %(default)s (or $ACE_CMD)",
    )
    parser.add_argument("--count", type=int, default=10_000, help="messages for smtp-source and ours (%(default)s)")
    parser.add_argument("--edx-count", type=int, default=1_500, help="messages for edx-ace (%(default)s)")
    parser.add_argument("--sessions", default="1,8,32", help="connections at once (%(default)s)")
    parser.add_argument("--size", type=int, default=15_000, help="bytes of smtp-source's mails (%(default)s)")
    parser.add_argument("--rep", type=int, default=int(os.environ.get("REP", "3")), help="repetitions (%(default)s, or $REP)")
    parser.add_argument("--venv", type=Path, default=ROOT / "target" / "venv", help="made by tests/venv.sh if missing")
    parser.add_argument("--out", type=Path, help="where the JSON of all figures goes")
    given = parser.parse_args()
    given.sessions = [int(s) for s in given.sessions.split(",")]
    if given.ace and not given.config:
        parser.error("--ace needs --config")
    return given


# The sink.


class Sink:
    """smtp-sink on a free port of 127.0.0.1. It counts what it gets, so that a peer that sends nothing is found out."""

    def __init__(self, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.counter = folder / "sink.count"
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        with open(self.counter, "wb") as out:
            argv = ["smtp-sink", *user, "-c", f"127.0.0.1:{self.port}", "256"]
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        self.wait_until_up()

    def wait_until_up(self):
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        self.stop()
        raise Failed(f"smtp-sink does not answer: {self.counter.read_text(errors='replace')[-300:]}")

    def received(self):
        """How many mails it has taken so far; it rewrites `sess=… quit=… mesg=…` after each."""
        with open(self.counter, "rb") as file:
            file.seek(max(0, os.path.getsize(self.counter) - 400))
            found = re.findall(rb"mesg=(\d+)\r", file.read())
        return int(found[-1]) if found else 0

    def expect(self, before, count, name):
        """Fails unless `count` more mails than `before` arrive."""
        for _ in range(50):
            if self.received() - before >= count:
                break
            time.sleep(0.02)
        got = self.received() - before
        if got != count:
            raise Failed(f"{name} delivered {got} mails of {count}")

    def cpu_s(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


# One child, measured.


def peak_rss_mb(pid):
    """VmHWM of a live process. wait4's ru_maxrss will not do: it starts from what this interpreter had at the fork."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def watch(pid, done, peak):
    """Samples the peak until `done`, and ends a child that outlives its limit."""
    began = time.monotonic()
    while not done.wait(SAMPLE_S):
        peak[0] = max(peak[0], peak_rss_mb(pid))
        if time.monotonic() - began > CHILD_LIMIT_S:
            os.kill(pid, signal.SIGKILL)
            return


def run_child(argv, folder, **options):
    """Runs a child to its end: (wall seconds, CPU seconds of user and system, peak MB, its stdout's first 10 kB)."""
    out, err = folder / "child.out", folder / "child.err"
    with open(out, "wb") as stdout, open(err, "wb") as stderr:
        began = time.perf_counter()
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, **options)
        done, peak = threading.Event(), [0.0]
        watcher = threading.Thread(target=watch, args=(child.pid, done, peak))
        watcher.start()
        try:
            _, status, usage = os.wait4(child.pid, 0)
            wall = time.perf_counter() - began
            child.returncode = os.waitstatus_to_exitcode(status)
        finally:
            done.set()
            watcher.join()
            if child.returncode is None:
                child.kill()
    if child.returncode != 0:
        raise Failed(f"{shlex.join(map(str, argv))}: exit {child.returncode}\n{err.read_text(errors='replace')[-2000:]}")
    with open(out, encoding="utf-8", errors="replace") as stdout:
        return wall, usage.ru_utime + usage.ru_stime, peak[0], stdout.read(10_000)


def figures(count, wall, cpu, rss):
    return {
        "n": count,
        "wall_s": round(wall, 3),
        "msg_s": round(count / wall, 1),
        "cpu_us": round(cpu / count * 1e6, 1),
        "rss_mb": round(rss, 1),
    }


# The peers.


class Bench:
    def __init__(self, given, folder, sink):
        self.given, self.folder, self.sink = given, folder, sink
        self.runs = []

    def row(self, name, count, measure):
        """Measures one peer, checks with the sink that its mails arrived, and prints its line."""
        before, sink_cpu = self.sink.received(), self.sink.cpu_s()
        row = {"name": name, **measure()}
        sent = row.pop("sent", count)
        self.sink.expect(before, sent, name)
        row["sink_cpu_us"] = round((self.sink.cpu_s() - sink_cpu) / sent * 1e6, 1)
        self.runs.append(row)
        print(json.dumps(row), flush=True)

    def smtp_source(self, sessions):
        argv = ["smtp-source", "-d", "-s", sessions, "-m", self.given.count, "-l", self.given.size]
        argv += ["-f", "a@example.org", "-t", "b@example.com", f"127.0.0.1:{self.sink.port}"]
        wall, cpu, rss, _ = run_child(list(map(str, argv)), self.folder)
        return figures(self.given.count, wall, cpu, rss)

    def edx_ace(self, messages):
        argv = [self.given.venv / "bin" / "python", "bench_ace.py", "smtp", messages, self.given.edx_count]
        argv += ["--port", self.sink.port]
        return json.loads(run_child(list(map(str, argv)), self.folder, cwd=HERE / "django")[3])

    def ace(self, messages, sessions, count):
        given = self.given
        text = given.config.read_text(encoding="utf-8")
        if "@PORT@" not in text:
            raise Failed(f"{given.config} has no @PORT@: the mails would go elsewhere than to this run's smtp-sink")
        # Beside the original, because relative paths in it start at its folder.
        config = given.config.with_name(f".{given.config.stem}.peers-{os.getpid()}.toml")
        try:
            text = text.replace("@PORT@", str(self.sink.port)).replace("@CONNECTIONS@", str(sessions))
            config.write_text(text, encoding="utf-8")
            values = {"ace": given.ace, "config": config, "messages": messages, "connections": sessions}
            argv = [part.format(**values) for part in shlex.split(given.ace_cmd)]
            wall, cpu, rss, _ = run_child(argv, self.folder)
        finally:
            config.unlink(missing_ok=True)
        return figures(count, wall, cpu, rss)

    def round(self, messages):
        """Each peer once. In turn, so that what else the machine does falls on all."""
        given = self.given
        for sessions in given.sessions:
            self.row(f"smtp-source {sessions}", given.count, lambda: self.smtp_source(sessions))
        self.row("edx-ace smtp", given.edx_count, lambda: self.edx_ace(messages))
        for sessions in given.sessions if given.ace else []:
            self.row(f"ace {sessions}", given.count, lambda: self.ace(messages, sessions, given.count))


def lay_out(messages, folder, count):
    """A file of exactly `count` messages: the given ones in turn, each repetition with a uuid of its own."""
    lines = [line for line in messages.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise Failed(f"{messages} has no messages")
    uuids = [json.loads(line)["uuid"] for line in lines]
    path = folder / f"messages-{count}.ndjson"
    with open(path, "w", encoding="utf-8") as out:
        for number in range(count):
            line, old = lines[number % len(lines)], uuids[number % len(lines)]
            fresh = old if number < len(lines) else str(uuid.uuid5(uuid.UUID(old), str(number)))
            out.write(line.replace(old, fresh) + "\n")
    return path


# What it comes to.


def medians(runs):
    """Median of every figure, by name."""
    by_name = {}
    for run in runs:
        by_name.setdefault(run["name"], []).append(run)
    return {
        name: {key: round(statistics.median(run[key] for run in rows), 3) for key in rows[0] if key != "name"}
        for name, rows in by_name.items()
    }


def ratios(runs, sessions):
    """Ours against each peer: the ratio within a round, then the median over the rounds."""
    by_name = {}
    for run in runs:
        by_name.setdefault(run["name"], []).append(run)
    out = {}
    for count in sessions:
        ours = by_name.get(f"ace {count}", [])
        if not ours:
            continue
        source, edx = by_name[f"smtp-source {count}"], by_name["edx-ace smtp"]
        median = lambda pairs: round(statistics.median(pairs), 2)  # noqa: E731
        out[f"rate of ace {count} / smtp-source {count}"] = median(a["msg_s"] / s["msg_s"] for a, s in zip(ours, source))
        out[f"CPU of edx-ace / ace {count}"] = median(e["cpu_us"] / a["cpu_us"] for a, e in zip(ours, edx))
        out[f"CPU of edx-ace without its JSON / ace {count}"] = median(e["cpu_us_parsed"] / a["cpu_us"] for a, e in zip(ours, edx))
    return out


def report(result):
    for name, figure in result["medians"].items():
        line = f"{name:16} {figure['msg_s']:>9.0f} msg/s {figure['cpu_us']:>9.1f} us CPU {figure['rss_mb']:>7.1f} MB"
        print(f"{line}   (smtp-sink {figure['sink_cpu_us']:.0f} us)", file=sys.stderr)
    for name, ratio in result["ratios"].items():
        print(f"{name}: {ratio}", file=sys.stderr)


def check_inputs(given):
    """Everything that can be missing, before anything is started."""
    for path in filter(None, (given.messages, given.config, given.ace)):
        if not path.exists():
            raise Failed(f"{path} does not exist")
    os.environ["PATH"] += os.pathsep + "/usr/sbin"
    for tool in ("smtp-sink", "smtp-source"):
        if not any(os.access(Path(folder) / tool, os.X_OK) for folder in os.environ["PATH"].split(os.pathsep)):
            raise Failed(f"{tool} is not installed\n  hint: make bench installs it; by hand see host/benches/peers/README.md")
    subprocess.run([ROOT / "tests" / "venv.sh", given.venv], check=True)


def measure(given):
    sink = None
    with tempfile.TemporaryDirectory(prefix="ace-peers-") as name:
        folder = Path(name)
        try:
            sink = Sink(folder)
            bench = Bench(given, folder, sink)
            messages = lay_out(given.messages, folder, given.count)
            startup = None
            if given.ace:
                one = lay_out(given.messages, folder, 1)
                bench.ace(one, 1, 1)  # compiles the plugins into the cache
                startup = bench.ace(one, 1, 1)
            load = os.getloadavg()[0]
            for _ in range(given.rep):
                bench.round(messages)
        finally:
            if sink:
                sink.stop()
    machine = {"cpus": os.cpu_count(), "kernel": platform.release(), "load_before": round(load, 2)}
    result = {"machine": machine, "runs": bench.runs, "medians": medians(bench.runs)}
    result["ratios"] = ratios(bench.runs, given.sessions)
    if startup:
        result["ace_startup"] = {"wall_s": startup["wall_s"], "cpu_s": round(startup["cpu_us"] / 1e6, 3)}
    return result


def main():
    given = parse_arguments()
    # So that a stopped run still stops its children.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        check_inputs(given)
        result = measure(given)
    except Failed as error:
        sys.exit(f"run.py: {error}")
    report(result)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
