// Delivers text messages through a gateway.

import { contact, postJson, reading, required, skipped } from "./ace.js";

export const channel = {
  describe() {
    return { channelType: "sms", templateFiles: [{ name: "body.txt", required: true }] };
  },

  enabled() {
    required("url");
  },

  overridesDeliveryForMessage: (message) => reading(message, () => false),

  actionLinks: (message) => reading(message, () => []),

  trackerImageSources: (message) => reading(message, () => []),

  deliver(message, rendered, attempt) {
    const phone = reading(message, (message) => contact(message, "phone"));
    if (phone === undefined) throw skipped("the recipient has no telephone number");
    const body = { to: phone, text: rendered[0][1] };
    // The host adds the credential, so the token never enters the plugin.
    postJson(required("url"), body, [["idempotency-key", attempt.idempotencyKey]], "gateway");
    return {};
  },
};
