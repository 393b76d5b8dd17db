// Delivers text messages through a gateway.

import type { ActionLink, Attempt, ChannelInfo, Receipt, Rendered } from "openedx:ace/channel@1.1.0";
import type { Message } from "openedx:ace/messages@1.1.0";

import { contact, postJson, reading, required, skipped } from "./ace.js";

export const channel = {
  describe(): ChannelInfo {
    return { channelType: "sms", templateFiles: [{ name: "body.txt", required: true }] };
  },

  enabled(): void {
    required("url");
  },

  overridesDeliveryForMessage: (message: Message): boolean => reading(message, () => false),

  actionLinks: (message: Message): ActionLink[] => reading(message, () => []),

  trackerImageSources: (message: Message): string[] => reading(message, () => []),

  deliver(message: Message, rendered: Rendered, attempt: Attempt): Receipt {
    const phone = reading(message, (message) => contact(message, "phone"));
    if (phone === undefined) throw skipped("the recipient has no telephone number");
    const body = { to: phone, text: rendered[0]?.[1] };
    // The host adds the credential, so the token never enters the plugin.
    postJson(required("url"), body, [["idempotency-key", attempt.idempotencyKey]], "gateway");
    return {};
  },
};
