// Holds back what is not transactional.

import { get } from "openedx:ace/config@1.0.0";
import type { Message } from "openedx:ace/messages@1.0.0";
import type { PolicyResult } from "openedx:ace/policy@1.0.0";

function channelTypes(): string[] {
  const text = get("channel-types") ?? "";
  // A text that is thrown is the error; anything else that is thrown is a trap.
  if (!text.startsWith("[")) throw 'config key "channel-types": a list such as ["push"] is expected';
  return JSON.parse(text);
}

export const policy = {
  enabled(): void {
    channelTypes();
  },

  check(message: Message): PolicyResult {
    const isTransactional = message.options("/transactional") === "true";
    // A message that is not disposed of takes up a handle.
    message[Symbol.dispose]();
    if (isTransactional) return { deny: [], delay: [] };
    const deny = channelTypes().map((channelType) => ({ channelType, reason: "it is not transactional" }));
    return { deny, delay: [] };
  },
};
