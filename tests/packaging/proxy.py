#!/usr/bin/env python3
"""Runs ACE behind nginx and Caddy, with the blocks of packaging/proxy: streams are passed on at once, and no body is too large for them.

    tests/packaging/proxy.py ACE
"""

import http.client
import json
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 180
CONFIG = """
cache-dir = "cache"
[mailer]
default-from = "a@example.com"
[relays.main]
kind = "discard"
[server]
listen = "127.0.0.1:{port}"
tokens-file = "tokens.json"
[events]
keep = true
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def wait_for(port, process):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on {port}, exit code {process.poll()}")


def check(condition, what):
    if not condition:
        sys.exit(f"failed: {what}")
    print(f"ok: {what}", flush=True)


class Ace:
    def __init__(self, program, folder):
        self.port, program = free_port(), str(Path(program).resolve())
        (folder / "ace.toml").write_text(CONFIG.format(port=self.port))
        create = [program, "token", "create", "test", "--scope", "send,read,admin"]
        made = subprocess.run(create, cwd=folder, text=True, capture_output=True, check=True)
        self.token = made.stdout.split()[-1]
        self.process = subprocess.Popen([program, "--log", "warn", "serve"], cwd=folder, stderr=sys.stderr)
        wait_for(self.port, self.process)


class Proxy:
    """A proxy, as a client sees it."""

    def __init__(self, port, token):
        self.port = port
        self.headers = {"Authorization": f"Bearer {token}", "Host": "ace.example.com"}

    def connect(self):
        context = ssl._create_unverified_context()
        return http.client.HTTPSConnection("localhost", self.port, timeout=PATIENCE, context=context)

    def post(self, path, kind, body):
        connection = self.connect()
        connection.request("POST", path, body, {**self.headers, "Content-Type": kind})
        response = connection.getresponse()
        return response.status, response.read().decode()

    def get(self, path):
        connection = self.connect()
        connection.request("GET", path, headers=self.headers)
        response = connection.getresponse()
        return response.status, response.read().decode()


def message(text):
    return json.dumps({"app_label": "app", "name": "note", "recipient": {"lms_user_id": 7, "email_address": "zoe@example.com"},
                       "context": {"text": text}})


def head(uuid):
    return json.dumps({"uuid": uuid, "message_type": {"app_label": "app", "name": "note", "context": {}}}) + "\n"


def lines(count, text=""):
    return "".join(json.dumps({"key": str(n), "recipient": {"lms_user_id": n, "email_address": f"u{n}@example.com"},
                               "user_context": {"text": text}}) + "\n" for n in range(count))


def streams(proxy, name):
    """Server-sent events arrive while the response is open."""
    connection = proxy.connect()
    connection.request("GET", "/v1/events", headers=proxy.headers)
    response = connection.getresponse()
    assert response.status == 200, response.status
    status, answer = proxy.post("/v1/messages", "application/json", message("short"))
    assert status == 202, (status, answer)
    started = time.monotonic()
    while not response.fp.readline().startswith(b"data:"):
        pass
    check(time.monotonic() - started < 10, f"{name} passes on events at once")


def bodies(proxy, name):
    status, answer = proxy.post("/v1/messages", "application/json", message("x" * 2_000_000))
    problem = json.loads(answer) if answer.startswith("{") else answer
    check(status == 413 and "type" in problem, f"{name} leaves it to ACE to refuse a message that is too large")
    uuid = "00000000-0000-4000-8000-000000000001"
    status, answer = proxy.post("/v1/batches", "application/x-ndjson", head(uuid) + lines(4_000, "x" * 1_000))
    check(status in (200, 202), f"{name} passes on a batch of 4 MB")


def arrives_in_parts(proxy, name):
    """A batch is stored while it arrives."""
    uuid = "00000000-0000-4000-8000-000000000002"
    connection = proxy.connect()
    connection.putrequest("POST", "/v1/batches", skip_host=True)
    for header, value in {**proxy.headers, "Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked"}.items():
        connection.putheader(header, value)
    connection.endheaders()
    part = (head(uuid) + lines(2_000, "x" * 200)).encode()
    connection.send(b"%x\r\n%s\r\n" % (len(part), part))
    until, total = time.monotonic() + 20, 0
    while total == 0 and time.monotonic() < until:
        status, answer = proxy.get(f"/v1/batches/{uuid}")
        counts = re.findall(r'"(?:total|accepted|queued|waiting|sent|messages)": ?(\d+)', answer) if status == 200 else []
        total = max(map(int, counts), default=0)
        time.sleep(0.1)
    connection.send(b"0\r\n\r\n")
    response = connection.getresponse()
    response.read()
    check(total > 0 and response.status in (200, 202), f"{name} passes on a batch while it arrives")


def exercise(name, port, ace):
    proxy = Proxy(port, ace.token)
    streams(proxy, name)
    bodies(proxy, name)
    arrives_in_parts(proxy, name)
    check(proxy.get("/metrics")[0] == 404, f"{name} does not publish metrics")
    check(proxy.get("/readyz")[0] == 200, f"{name} passes on everything else")


def nginx(folder, ace):
    port, block = free_port(), (REPOSITORY / "packaging/proxy/nginx.conf").read_text()
    block = block.replace("127.0.0.1:8025", f"127.0.0.1:{ace.port}").replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    for name, file in (("fullchain", "cert"), ("privkey", "key")):
        block = block.replace(f"/etc/ssl/ace/{name}.pem", str(folder / f"{file}.pem"))
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"daemon off;\nuser root;\npid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{block}\n}}\n")
    return port, ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)]


def caddy(folder, ace):
    port, block = free_port(), (REPOSITORY / "packaging/proxy/Caddyfile").read_text()
    block = block.replace("127.0.0.1:8025", f"127.0.0.1:{ace.port}")
    sites = f"https://localhost:{port}, https://ace.example.com:{port}"
    block = block.replace("ace.example.com {", f"{sites} {{\n\ttls {folder}/cert.pem {folder}/key.pem")
    options = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n"
    (folder / "Caddyfile").write_text(options + block)
    return port, ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


def main():
    with tempfile.TemporaryDirectory(prefix="ace-proxy-") as name:
        folder = Path(name)
        subject = ["-subj", "/CN=ace.example.com", "-addext", "subjectAltName=DNS:localhost,DNS:ace.example.com"]
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject,
                        "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True)
        for proxy in (nginx, caddy):
            # A server of its own, because the batches have the same uuids.
            home = folder / proxy.__name__
            home.mkdir()
            ace, process = Ace(sys.argv[1], home), None
            try:
                port, command = proxy(folder, ace)
                environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(folder)}
                process = subprocess.Popen(command, cwd=folder, env=environment, stderr=open(folder / "log", "w"))
                wait_for(port, process)
                exercise(proxy.__name__, port, ace)
            finally:
                for running in (process, ace.process):
                    if running:
                        running.terminate()
                        running.wait(PATIENCE)


main()
