"""Delivers text messages through a gateway."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.channel import (
    Attempt,
    ChannelInfo,
    DeliveryError_Fatal,
    DeliveryError_Recoverable,
    DeliveryError_Skipped,
    Receipt,
    TemplateFile,
)
from wit_world.imports import config, http
from wit_world.imports.common import RecoverableError
from wit_world.imports.messages import Message


def setting(key: str) -> str:
    value = config.get(key)
    if value is None:
        raise Err(f'config key "{key}" is not set')
    return value


def recoverable(message: str) -> Err:
    return Err(DeliveryError_Recoverable(RecoverableError(message, None)))


def post(body: dict, attempt: Attempt) -> int:
    """The status of the gateway's answer."""
    headers = [
        ("authorization", f"Bearer {setting('token')}"),
        ("content-type", "application/json"),
        ("idempotency-key", attempt.idempotency_key),
    ]
    try:
        return http.fetch(http.Request("POST", setting("url"), headers, json.dumps(body).encode(), None)).status
    except Err as error:
        match error.value:
            case http.HttpError_Denied(why) | http.HttpError_Invalid(why):
                raise Err(DeliveryError_Fatal(f"the gateway: {why}")) from None
            case other:
                raise recoverable(f"the gateway: {other}") from None


class Channel(exports.Channel):
    def describe(self) -> ChannelInfo:
        return ChannelInfo("sms", [TemplateFile("body.txt", True)])

    def enabled(self) -> None:
        setting("url")
        setting("token")

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
            recipient = message.recipient()
        contacts = recipient.contacts if recipient else []
        phone = next((address for kind, address in contacts if kind == "phone"), None)
        if phone is None:
            raise Err(DeliveryError_Skipped("the recipient has no telephone number"))
        status = post({"to": phone, "text": dict(rendered)["body.txt"]}, attempt)
        if 200 <= status < 300:
            return Receipt(None, None)
        if status == 429 or status >= 500:
            raise recoverable(f"the gateway: HTTP {status}")
        raise Err(DeliveryError_Fatal(f"the gateway: HTTP {status}"))
