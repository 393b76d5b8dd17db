// Posts with a credential, if the provider's signature in the context is valid, and notes outcomes.
import { context, fatal, postJson, reading, utf8 } from "./ace.js";
import { holdChannel, notedOutcomes, noteOutcome } from "./delivery.js";
import { verify } from "openedx:ace/signatures@1.1.0";

export const channel = {
  describe: () => ({ channelType: "sms", templateFiles: [] }),
  enabled() {},
  overridesDeliveryForMessage: (message) => reading(message, () => false),
  actionLinks: (message) => reading(message, () => []),
  trackerImageSources: (message) => reading(message, () => []),

  deliver(message) {
    const [data, signature, until] = reading(message, (message) =>
      ["/data", "/signature", "/until"].map((at) => context(message, at)));
    const bytes = Uint8Array.from(signature.match(/../g), (hex) => parseInt(hex, 16));
    if (!verify("api", "hmac-sha256", utf8(data), bytes)) throw fatal("forged");
    for (const { kind, address, outcome, providerId, code } of notedOutcomes()) {
      noteOutcome({ kind, address: `again ${address}`, outcome: "failed", providerId: code, code: `${outcome} ${providerId ?? "-"}` });
    }
    if (until !== undefined) holdChannel("the quota is used up", until === 0 ? undefined : until);
    const response = postJson("https://sms.example.com/v1/send", { data }, [], "api");
    noteOutcome({ kind: "phone", address: '+1 "ü" \\ 😀', outcome: "sent", providerId: "p-1" });
    return { providerId: String(response.status), detail: undefined };
  },
};
