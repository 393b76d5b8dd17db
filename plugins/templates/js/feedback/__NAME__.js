// Reads the events of a mail provider, which posts them to `/v1/feedback/__NAME__/SECRET`.

import { reading, required, text } from "./ace.js";

const KINDS = { bounce: "bounced", complaint: "complained" };

export const feedback = {
  enabled() {
    required("path-secret");
  },

  receive(request) {
    const { path, body } = reading(request, (request) => ({ path: request.path(), body: request.body() }));
    if (!isSame(path, `/${required("path-secret")}`)) {
      throw { tag: "refused", val: "the path does not end with the secret" };
    }
    return { events: [event(body)] };
  },
};

// One event. It is not vouched for, so it is shown but suppresses nobody: set `isVouched` once a signature was verified.
function event(body) {
  const { id, type, message, code, email } = parsed(body);
  if (typeof id !== "string") throw { tag: "malformed", val: 'the body: it has no text "id"' };
  return {
    id,
    kind: KINDS[type] ?? type ?? "unknown",
    messageId: message,
    address: email === undefined ? undefined : ["email", email],
    isPermanent: String(code).startsWith("5"),
    isVouched: false,
    reason: code,
  };
}

function parsed(body) {
  try {
    return JSON.parse(text(body)) ?? {};
  } catch (error) {
    throw { tag: "malformed", val: `the body: ${error}` };
  }
}

// Compares without revealing by its duration how much is the same.
function isSame(given, secret) {
  let differs = given.length ^ secret.length;
  for (let i = 0; i < given.length; i++) differs |= given.charCodeAt(i) ^ secret.charCodeAt(i % secret.length);
  return differs === 0;
}
