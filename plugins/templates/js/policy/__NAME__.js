// Holds back what is not transactional.

import { get } from "openedx:ace/config@1.0.0";

function channelTypes() {
  const text = get("channel-types") ?? "";
  const types = text.startsWith("[") ? JSON.parse(text) : undefined;
  // A text that is thrown is the error; anything else that is thrown is a trap.
  if (types === undefined) throw 'config key "channel-types": a list such as ["push"] is expected';
  return types;
}

export const policy = {
  enabled() {
    channelTypes();
  },

  check(message) {
    const isTransactional = message.options("/transactional") === "true";
    // A message that is not disposed of takes up a handle.
    message[Symbol.dispose]();
    if (isTransactional) return { deny: [], delay: [] };
    const deny = channelTypes().map((channelType) => ({ channelType, reason: "it is not transactional" }));
    return { deny, delay: [] };
  },
};
