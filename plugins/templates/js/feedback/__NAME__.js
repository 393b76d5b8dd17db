// Reads the events of a mail provider, which posts them to `/v1/feedback/__NAME__/SECRET`.

import { fromJson, reading, required, utf8 } from "./ace.js";

// A Map, because an object has keys of its own, such as "constructor".
const KINDS = new Map([
  ["bounce", "bounced"],
  ["complaint", "complained"],
]);

export const feedback = {
  enabled() {
    required("path-secret");
  },

  receive(request) {
    const { path, body } = reading(request, (request) => ({ path: request.path(), body: request.body() }));
    const secret = required("path-secret");
    if (secret === "" || !isSame(path, `/${secret}`)) throw failed("refused", "the path does not end with the secret");
    return { events: [event(body)] };
  },
};

// One event. It is not vouched for, so it is shown but suppresses nobody: set `isVouched` once a signature was verified.
function event(body) {
  // One event is short; a long body would only use up the time of the call.
  if (body.length > 16_384) throw failed("malformed", "the body: it is longer than 16,384 bytes");
  const fields = fromJson(body);
  if (fields === undefined) throw failed("malformed", "the body: it is not JSON");
  const [id, message, code, email] = [fields?.id, fields?.message, fields?.code, fields?.email].map(accepted);
  if (id === undefined) throw failed("malformed", 'the body: it has no text "id" of 1 to 1,024 bytes');
  return {
    id,
    kind: KINDS.get(fields.type) ?? "unknown",
    messageId: message,
    address: email === undefined ? undefined : ["email", email],
    isPermanent: code?.startsWith("5") ?? false,
    isVouched: false,
    reason: code,
  };
}

// The host accepts ids and addresses of this length. Anything else is treated as missing.
const accepted = (value) =>
  typeof value === "string" && value !== "" && utf8(value).length <= 1024 ? value : undefined;

const failed = (tag, val) => ({ tag, val });

// Compares without revealing by its duration how much is the same.
function isSame(given, secret) {
  let differs = given.length ^ secret.length;
  for (let i = 0; i < given.length; i++) differs |= given.charCodeAt(i) ^ secret.charCodeAt(i % secret.length);
  return differs === 0;
}
