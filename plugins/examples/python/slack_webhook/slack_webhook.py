"""Posts messages into a Slack channel by its incoming webhook."""

import json
import math
import re
import time

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.channel import (
    Attempt,
    ChannelInfo,
    DeliveryError_Fatal,
    DeliveryError_Recoverable,
    Receipt,
    TemplateFile,
)
from wit_world.imports import config, http
from wit_world.imports.common import RecoverableError
from wit_world.imports.messages import Message

TIMEOUT_MS = 10_000
# Nobody means a moment after this one, the end of the year 9999.
TIME_MAX = 253_402_300_799_000


def fatal(why: str) -> Err:
    return Err(DeliveryError_Fatal(why))


def recoverable(message: str, next_attempt_time: int | None = None) -> Err:
    return Err(DeliveryError_Recoverable(RecoverableError(message, next_attempt_time)))


def webhook_url() -> str:
    """Whoever knows it can post: a secret, which no text of ours holds."""
    url = config.get("webhook-url")
    if url is None:
        raise Err('secret "webhook-url" is not set')
    if not url.startswith("https://"):
        raise Err('secret "webhook-url": it is no https URL')
    return url


def mention(message: Message) -> str:
    """The recipient, where they have a Slack member id among their contacts."""
    recipient = message.recipient()
    member = next((value for kind, value in recipient.contacts if kind == "slack"), None) if recipient else None
    if member is None:
        return ""
    if not re.fullmatch(r"[UW][A-Z0-9]+", member):
        raise fatal('the contact "slack" is no member id such as U012AB3CD')
    return f"<@{member}> "


def escaped(text: str) -> str:
    """Slack's three control characters: without this a name such as `<!channel>` would call everybody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def post(text: str) -> http.Response:
    body = json.dumps({"text": text}, ensure_ascii=False, separators=(",", ":")).encode()
    request = http.Request("POST", webhook_url(), [("content-type", "application/json")], body, TIMEOUT_MS)
    try:
        return http.fetch(request)
    except Err as error:
        raise failure(error.value) from None


def failure(error: http.HttpError) -> Err:
    """Time-outs and broken connections may pass, the rest does not."""
    match error:
        case http.HttpError_TimedOut():
            return recoverable("http: no answer in time")
        case http.HttpError_Connection(why):
            return recoverable(f"http: connection failed: {why}")
        case http.HttpError_TooLarge(limit):
            return fatal(f"http: the answer is longer than {limit} bytes")
        case http.HttpError_Denied(why) | http.HttpError_Invalid(why):
            return fatal(f"http: {why}")


def outcome(answer: http.Response) -> Receipt:
    status = answer.status
    if 200 <= status < 300:
        return Receipt(None, None)
    # Slack's error codes are words in lower case (`no_service`); any other body is not Slack's.
    code = re.fullmatch(rb"[a-z_]{1,60}", answer.body)
    said = f"Slack answered {status}" + (f": {code[0].decode()}" if code else "")
    raise recoverable(said, retry_after(answer)) if status == 429 or status >= 500 else fatal(said)


def retry_after(answer: http.Response) -> int | None:
    value = next((value for name, value in answer.headers if name == "retry-after"), "")
    seconds = re.fullmatch(r"([0-9]+)(\.[0-9]+)?", value.strip())
    if not seconds:
        return None
    rounded_up = int(seconds[1]) * 1000 + math.ceil(float(seconds[2] or 0) * 1000)
    at = time.time_ns() // 1_000_000 + rounded_up
    return at if at <= TIME_MAX else None


class Channel(exports.Channel):
    def describe(self) -> ChannelInfo:
        return ChannelInfo("slack", [TemplateFile("body.txt", True)])

    def enabled(self) -> None:
        webhook_url()

    def overrides_delivery_for_message(self, message: Message) -> bool:
        with message:
            return False

    def action_links(self, message: Message) -> list:
        with message:
            return []

    def tracker_image_sources(self, message: Message) -> list:
        with message:
            return []

    def deliver(self, message: Message, rendered: list[tuple[str, str]], attempt: Attempt) -> Receipt:
        with message:
            text = mention(message) + escaped(dict(rendered)["body.txt"])
        return outcome(post(text))
