// Holds back what is not transactional.

import { isTrue, option, reading, settingJson } from "./ace.js";

function channelTypes() {
  const types = settingJson("channel-types");
  // A text that is thrown is the error; anything else that is thrown is a trap.
  if (!Array.isArray(types) || !types.every((type) => typeof type === "string")) {
    throw 'config key "channel-types": a list such as ["push"] is expected';
  }
  return types;
}

export const policy = {
  enabled() {
    channelTypes();
  },

  check(message) {
    const isTransactional = reading(message, (message) => isTrue(option(message, "/transactional")));
    if (isTransactional) return { deny: [], delay: [] };
    const deny = channelTypes().map((channelType) => ({ channelType, reason: "it is not transactional" }));
    return { deny, delay: [] };
  },
};
