"""Posts with a credential, if the provider's signature in the context is valid, and notes outcomes."""

from ace import context, fatal, hold_channel, note_outcome, noted_outcomes, post_json
from wit_world import exports
from wit_world.exports.channel import ChannelInfo, Receipt
from wit_world.imports import signatures


class Channel(exports.Channel):
    def describe(self):
        return ChannelInfo("sms", [])

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
            data, signature, until = (context(message, at) for at in ("/data", "/signature", "/until"))
        if not signatures.verify("api", "hmac-sha256", data.encode(), bytes.fromhex(signature)):
            raise fatal("forged")
        for note in noted_outcomes():
            code = f"{note['outcome']} {note.get('provider_id', '-')}"
            note_outcome(note["kind"], f"again {note['address']}", "failed", note.get("code"), code)
        if until is not None:
            hold_channel("the quota is used up", until or None)
        response = post_json("https://sms.example.com/v1/send", {"data": data}, credential="api")
        note_outcome("phone", '+1 "ü" \\ 😀', "sent", "p-1")
        return Receipt(str(response.status), None)
