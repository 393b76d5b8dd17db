"""Plays systemd for one service: holds its socket, passes it, and waits for the notification that it is ready."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

PATIENCE = 120
REPOSITORY = Path(__file__).parents[2]
SAMPLE = json.loads((REPOSITORY / "templates/samples/passwordreset.json").read_text())


class Systemd:
    def __init__(self, notify):
        """`notify` is the path of the notification socket, as the service sees it, and as this process does."""
        self.seen, path = notify
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.socket.getsockname()[1]
        self.notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notifications.bind(str(path))
        os.chmod(path, 0o777)
        self.notifications.settimeout(PATIENCE)
        self.service = None

    def start(self, command, **options):
        """Starts the service. `command` is run by a shell that sets LISTEN_PID."""
        os.set_inheritable(self.socket.fileno(), True)
        descriptor = self.socket.fileno()
        script = f'LISTEN_PID=$$ exec "$@" 3<&{descriptor}'
        environment = {"PATH": os.environ["PATH"], "NOTIFY_SOCKET": self.seen, "WATCHDOG_USEC": "60000000",
                       "LISTEN_FDS": "1", "LISTEN_FDNAMES": "http"}
        self.service = subprocess.Popen(["sh", "-c", script, "sh", *map(str, command)], env=environment, text=True,
                                        pass_fds=[descriptor], stderr=subprocess.PIPE, **options)
        self.log = []
        threading.Thread(target=lambda pipe: self.log.extend(pipe), args=[self.service.stderr], daemon=True).start()
        self.expect("READY=1")

    def expect(self, line):
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                self.notifications.settimeout(1)
                if line in self.notifications.recv(4096).decode().split("\n"):
                    return
            except TimeoutError:
                if self.service.poll() is not None:
                    break
        sys.exit(f"no {line}; its log:\n{''.join(self.log)}")

    def stop(self):
        self.service.terminate()
        self.expect("STOPPING=1")
        code = self.service.wait(PATIENCE)
        if code != 0:
            sys.exit(f"the service ended with {code}:\n{''.join(self.log)}")

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def submit(self, number, message=SAMPLE, token=None, connection=None):
        """Submits a message over a connection of its own, or over one that is kept. Returns the status."""
        message = {**message, "uuid": str(uuid.UUID(int=number))}
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        own = connection or self.connect()
        own.request("POST", "/v1/messages", json.dumps(message), headers)
        response = own.getresponse()
        response.read()
        if connection is None:
            own.close()
        return response.status


class Load(threading.Thread):
    """A client that submits messages until it is stopped, over one connection that it keeps if it may."""

    def __init__(self, systemd, first, keeps=False):
        super().__init__(daemon=True)
        self.connection = systemd.connect() if keeps else None
        self.systemd, self.number, self.accepted, self.failure = systemd, first, [], None
        self.over = threading.Event()
        self.start()

    def run(self):
        try:
            while not self.over.is_set():
                self.number += 1
                status = self.systemd.submit(self.number, connection=self.connection)
                assert status == 202, status
                self.accepted.append(self.number)
                time.sleep(0.02)
        except Exception as error:  # noqa: BLE001: it is reported by stop()
            self.failure = error

    def stop(self):
        self.over.set()
        self.join(PATIENCE)
        if self.failure or not self.accepted:
            sys.exit(f"a request failed: {self.failure!r}; accepted: {len(self.accepted)}")
        return self.accepted
