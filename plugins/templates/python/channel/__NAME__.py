"""Delivers text messages through a gateway."""

from ace import contact, post_json, required, skipped
from wit_world import exports
from wit_world.exports.channel import Attempt, ChannelInfo, Receipt, TemplateFile
from wit_world.imports.messages import Message


class Channel(exports.Channel):
    def describe(self) -> ChannelInfo:
        return ChannelInfo("sms", [TemplateFile("body.txt", True)])

    def enabled(self) -> None:
        required("url")

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
            phone = contact(message.recipient(), "phone")
        if phone is None:
            raise skipped("the recipient has no telephone number")
        body = {"to": phone, "text": dict(rendered)["body.txt"]}
        # The host adds the credential, so the token never enters the plugin.
        post_json(required("url"), body, [("idempotency-key", attempt.idempotency_key)], "gateway")
        return Receipt(None, None)
