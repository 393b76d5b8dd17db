// A channel built against tests/compat/wit-1.1.0, which uses what 1.1.0 gave to channels: credentials, signatures, outcomes of
// addresses, and places in a window. It must not be changed.
import { fetch } from "openedx:ace/authorized-http@1.1.0";
import { holdChannel, noteOutcome, notedOutcomes } from "openedx:ace/delivery@1.1.0";
import { countOnce, givePlaceBack, takePlace } from "openedx:ace/keyvalue@1.1.0";
import { verify } from "openedx:ace/signatures@1.1.0";

const dispose = (message, answer) => (message[Symbol.dispose](), answer);
const utf8 = (text) => Uint8Array.from(text, (character) => character.charCodeAt(0));
const hex = (text) => Uint8Array.from(text.match(/../g), (digits) => parseInt(digits, 16));

export const channel = {
  describe: () => ({ channelType: "sms", templateFiles: [{ name: "body.txt", required: true }] }),
  enabled() {},
  overridesDeliveryForMessage: (message) => dispose(message, false),
  actionLinks: (message) => dispose(message, []),
  trackerImageSources: (message) => dispose(message, []),

  deliver(message, rendered, attempt) {
    const uuid = message.uuid();
    const signature = JSON.parse(dispose(message, message.context("/signature")));
    if (!verify("gateway", "hmac-sha256", utf8("frozen"), hex(signature))) throw { tag: "skipped", val: "forged" };
    const counted = countOnce("counts", "all", uuid, 1, undefined);
    const place = takePlace("counts", "window", uuid, 1, 60000);
    givePlaceBack("counts", "window", uuid);
    const earlier = JSON.parse(notedOutcomes()).length;
    let status;
    try {
      const request = { method: "POST", url: "https://sms.example.com/v1/$(gateway)/send", headers: [], body: utf8(rendered[0][1]) };
      ({ status } = fetch(request, "gateway"));
    } catch ({ payload }) {
      holdChannel(1767272400000, payload.tag);
      throw { tag: "recoverable", val: { message: payload.tag, nextAttemptTime: undefined } };
    }
    noteOutcome(JSON.stringify({ kind: "phone", address: "+15550100", outcome: "sent", provider_id: "p-1", code: String(status) }));
    const detail = [earlier, counted.at, counted.total, counted.firstTime, place.isGranted, place.used, attempt.number];
    return { providerId: "p-1", detail: JSON.stringify(detail) };
  },
};
