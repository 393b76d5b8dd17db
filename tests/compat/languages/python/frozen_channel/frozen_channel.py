"""A channel built against tests/compat/wit-1.1.0, which uses what 1.1.0 gave to channels: credentials, signatures, outcomes of addresses,
and places in a window. It must not be changed."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.channel import ChannelInfo, DeliveryError_Recoverable, DeliveryError_Skipped, Receipt, TemplateFile
from wit_world.imports import authorized_http, delivery, keyvalue, signatures
from wit_world.imports.common import RecoverableError
from wit_world.imports.http import Request


class Channel(exports.Channel):
    def describe(self):
        return ChannelInfo("sms", [TemplateFile("body.txt", True)])

    def enabled(self):
        pass

    def overrides_delivery_for_message(self, message):
        return False

    def action_links(self, message):
        return []

    def tracker_image_sources(self, message):
        return []

    def deliver(self, message, rendered, attempt):
        with message:
            uuid, signature = message.uuid(), json.loads(message.context("/signature"))
        if not signatures.verify("gateway", "hmac-sha256", b"frozen", bytes.fromhex(signature)):
            raise Err(DeliveryError_Skipped("forged"))
        counted = keyvalue.count_once("counts", "all", uuid, 1, None)
        place = keyvalue.take_place("counts", "window", uuid, 1, 60000)
        keyvalue.give_place_back("counts", "window", uuid)
        earlier = len(json.loads(delivery.noted_outcomes()))
        url = "https://sms.example.com/v1/$(gateway)/send"
        try:
            response = authorized_http.fetch(Request("POST", url, [], rendered[0][1].encode(), None), "gateway")
        except Err as error:
            tag = type(error.value).__name__.removeprefix("AuthorizedError_").lower()
            delivery.hold_channel(1767272400000, tag)
            raise Err(DeliveryError_Recoverable(RecoverableError(tag, None))) from None
        note = {"kind": "phone", "address": "+15550100", "outcome": "sent", "provider_id": "p-1", "code": str(response.status)}
        delivery.note_outcome(json.dumps(note))
        detail = [earlier, counted.at, counted.total, counted.first_time, place.is_granted, place.used, attempt.number]
        return Receipt("p-1", json.dumps(detail))
