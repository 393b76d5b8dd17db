// As channel.js, checked by the compiler.
import type { ChannelInfo, Receipt } from "openedx:ace/channel@1.1.0";
import type { Message } from "openedx:ace/messages@1.1.0";
import { verify } from "openedx:ace/signatures@1.1.0";

import { context, fatal, postJson, reading, utf8 } from "./ace.js";
import { holdChannel, notedOutcomes, noteOutcome } from "./delivery.js";

export const channel = {
  describe: (): ChannelInfo => ({ channelType: "sms", templateFiles: [] }),
  enabled(): void {},
  overridesDeliveryForMessage: (message: Message): boolean => reading(message, () => false),
  actionLinks: (message: Message): [] => reading(message, () => []),
  trackerImageSources: (message: Message): [] => reading(message, () => []),

  deliver(message: Message): Receipt {
    const [data, signature, until] = reading(message, (message) =>
      ["/data", "/signature", "/until"].map((at) => context(message, at)));
    const bytes = Uint8Array.from((signature as string).match(/../g) ?? [], (hex) => parseInt(hex, 16));
    if (!verify("api", "hmac-sha256", utf8(data), bytes)) throw fatal("forged");
    for (const { kind, address, outcome, providerId, code } of notedOutcomes()) {
      noteOutcome({ kind, address: `again ${address}`, outcome: "failed", providerId: code, code: `${outcome} ${providerId ?? "-"}` });
    }
    if (until !== undefined) holdChannel("the quota is used up", until === 0 ? undefined : until);
    const response = postJson("https://sms.example.com/v1/send", { data }, [], "api");
    noteOutcome({ kind: "phone", address: '+1 "ü" \\ 😀', outcome: "sent", providerId: "p-1" });
    return { providerId: String(response.status) };
  },
};
