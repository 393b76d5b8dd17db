// Delivers text messages through a gateway.

import { get } from "openedx:ace/config@1.0.0";
import { fetch } from "openedx:ace/http@1.0.0";

function setting(key) {
  const value = get(key);
  if (value === undefined) throw `config key "${key}" is not set`;
  return value;
}

// QuickJS has no TextEncoder.
const utf8 = (text) =>
  Uint8Array.from(
    encodeURIComponent(text).replace(/%(..)/g, (_, hex) => String.fromCharCode(parseInt(hex, 16))),
    (byte) => byte.charCodeAt(0),
  );

const fatal = (why) => ({ tag: "fatal", val: why });
const recoverable = (message) => ({ tag: "recoverable", val: { message } });

function post(body, attempt) {
  try {
    return fetch({
      method: "POST",
      url: setting("url"),
      headers: [
        ["authorization", `Bearer ${setting("token")}`],
        ["content-type", "application/json"],
        ["idempotency-key", attempt.idempotencyKey],
      ],
      body: utf8(JSON.stringify(body)),
    });
  } catch (error) {
    const { tag, val } = error.payload ?? { tag: "invalid", val: String(error) };
    if (tag === "denied" || tag === "invalid") throw fatal(`the gateway: ${val}`);
    throw recoverable(`the gateway: ${val ?? "no answer in time"}`);
  }
}

export const channel = {
  describe() {
    return { channelType: "sms", templateFiles: [{ name: "body.txt", required: true }] };
  },

  enabled() {
    setting("url");
    setting("token");
  },

  overridesDeliveryForMessage(message) {
    message[Symbol.dispose]();
    return false;
  },

  actionLinks(message) {
    message[Symbol.dispose]();
    return [];
  },

  trackerImageSources(message) {
    message[Symbol.dispose]();
    return [];
  },

  deliver(message, rendered, attempt) {
    const contacts = message.recipient()?.contacts ?? [];
    message[Symbol.dispose]();
    const phone = contacts.find(([kind]) => kind === "phone")?.[1];
    if (phone === undefined) throw { tag: "skipped", val: "the recipient has no telephone number" };

    const { status } = post({ to: phone, text: rendered[0][1] }, attempt);
    if (status >= 200 && status < 300) return {};
    if (status === 429 || status >= 500) throw recoverable(`the gateway: HTTP ${status}`);
    throw fatal(`the gateway: HTTP ${status}`);
  },
};
