"""Runs the code "before" of docs/moving-from-edx-ace.md under the real edx-ace, with the cases of that page.

    python moving.py policy|channel

The rows of the application's database come from the case, and the provider is a web server on loopback. Prints each case with
another answer, and exits with 1 if there is one.
"""
import json
import re
import sys
import threading
import types
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

sys.dont_write_bytecode = True  # no __pycache__ in the source tree

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/fixtures"))

import ace_setup  # noqa: E402

ace_setup.configure()

from django.conf import settings  # noqa: E402
from edx_ace.channel import ChannelType  # noqa: E402
from edx_ace.errors import FatalChannelDeliveryError, RecoverableChannelDeliveryError  # noqa: E402
from edx_ace.message import Message  # noqa: E402
from edx_ace.recipient import Recipient  # noqa: E402

PAGE = (ROOT / "docs/moving-from-edx-ace.md").read_text()


def block(info):
    found = re.findall(rf"^```{info}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{info}: {len(found)} blocks"
    return found[0]


def build(case):
    fields = case["message"]
    recipient = Recipient(lms_user_id=fields["recipient"]["lms_user_id"], email_address=fields["recipient"]["email_address"])
    return Message(
        app_label=fields["app_label"],
        name=fields["name"],
        recipient=recipient,
        context=fields.get("context", {}),
        options=fields.get("options", {}),
    )


class Rows:
    """The manager of a model, over the rows of the case at hand."""

    def __init__(self, rows):
        self.rows = rows

    def filter(self, **wanted):
        return Rows([row for row in self.rows if all(getattr(row, key) == value for key, value in wanted.items())])

    def get(self, **wanted):
        (row,) = self.filter(**wanted).rows
        return row

    def exists(self):
        return bool(self.rows)


class Provider(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append({"authorization": self.headers["Authorization"], "body": body})
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


def load(kind, models):
    module = types.ModuleType("learners.models")
    vars(module).update(models)
    sys.modules["learners"], sys.modules["learners.models"] = types.ModuleType("learners"), module
    names = {}
    exec(compile(block(f"python before-{kind}"), f"before-{kind}", "exec"), names)
    return names


def policy(case):
    keys = case.get("facts", {}).get("course-mutes", {})
    rows = [types.SimpleNamespace(user_id=int(key.split("/")[0]), course_id=key.split("/")[1]) for key in keys]
    policy = load("policy", {"CourseMute": types.SimpleNamespace(objects=Rows(rows))})["MutedCourses"]
    assert policy.enabled()
    deny = policy().check(build(case)).deny
    return {"deny": [{"channel_type": of.value} for of in sorted(deny, key=lambda of: of.value)]} if deny else "pass"


def channel(case):
    recipient = case["message"]["recipient"]
    row = types.SimpleNamespace(user_id=recipient["lms_user_id"], phone=recipient.get("contacts", {}).get("phone"))
    server = HTTPServer(("127.0.0.1", 0), Provider)
    exchange = case.get("host", [{}])[0].get("http", {})
    server.asked, server.status = [], exchange.get("answer", {}).get("status", 500)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings.SMS_URL, settings.SMS_TOKEN = f"http://127.0.0.1:{server.server_port}/", "[secret]"
    channel = load("channel", {"Profile": types.SimpleNamespace(objects=Rows([row]))})["TextMessages"]
    assert channel.enabled() and channel.channel_type in ChannelType
    rendered = types.SimpleNamespace(body=case.get("rendered", {}).get("body.txt", "body.txt"))
    try:
        channel().deliver(build(case), rendered)
    except RecoverableChannelDeliveryError:
        answer = "recoverable"
    except FatalChannelDeliveryError:
        answer = "fatal"
    else:
        answer = "sent" if server.asked else "skipped"
    finally:
        server.shutdown()
    request = exchange.get("request", {})
    if request:
        (asked,) = server.asked
        assert asked["body"] == request["body"] and asked["authorization"] == request["headers"]["authorization"], asked
    # The kind of the answer; its text may differ.
    return {answer: case["expect"].get(answer)}


def main(kind):
    failed = 0
    for case in json.loads(block(f"json {kind}")):
        answer = {"policy": policy, "channel": channel}[kind](case)
        if answer != case["expect"]:
            failed += 1
            print(f"{case['name']}: expected {case['expect']}, answered {answer}")
    sys.exit(1 if failed else 0)


main(sys.argv[1])
