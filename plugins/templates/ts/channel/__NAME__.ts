// Delivers text messages through a gateway.

import type { ActionLink, Attempt, ChannelInfo, DeliveryError, Receipt, Rendered } from "openedx:ace/channel@1.0.0";
import { get } from "openedx:ace/config@1.0.0";
import { fetch, type HttpError, type Response } from "openedx:ace/http@1.0.0";
import type { Message } from "openedx:ace/messages@1.0.0";

function setting(key: string): string {
  const value = get(key);
  if (value === undefined) throw `config key "${key}" is not set`;
  return value;
}

// QuickJS has no TextEncoder.
const utf8 = (text: string): Uint8Array =>
  Uint8Array.from(
    encodeURIComponent(text).replace(/%(..)/g, (_, hex: string) => String.fromCharCode(parseInt(hex, 16))),
    (byte) => byte.charCodeAt(0),
  );

const fatal = (why: string): DeliveryError => ({ tag: "fatal", val: why });
const recoverable = (message: string): DeliveryError => ({ tag: "recoverable", val: { message } });

function post(body: object, attempt: Attempt): Response {
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
    const { payload } = error as { payload?: HttpError };
    if (payload === undefined) throw error;
    if (payload.tag === "denied" || payload.tag === "invalid") throw fatal(`the gateway: ${payload.val}`);
    throw recoverable(`the gateway: ${payload.val ?? "no answer in time"}`);
  }
}

const quiet = (message: Message) => message[Symbol.dispose]();

export const channel = {
  describe(): ChannelInfo {
    return { channelType: "sms", templateFiles: [{ name: "body.txt", required: true }] };
  },

  enabled(): void {
    setting("url");
    setting("token");
  },

  overridesDeliveryForMessage(message: Message): boolean {
    quiet(message);
    return false;
  },

  actionLinks(message: Message): ActionLink[] {
    quiet(message);
    return [];
  },

  trackerImageSources(message: Message): string[] {
    quiet(message);
    return [];
  },

  deliver(message: Message, rendered: Rendered, attempt: Attempt): Receipt {
    const contacts = message.recipient()?.contacts ?? [];
    message[Symbol.dispose]();
    const phone = contacts.find(([kind]) => kind === "phone")?.[1];
    if (phone === undefined) throw { tag: "skipped", val: "the recipient has no telephone number" };

    const { status } = post({ to: phone, text: rendered[0]?.[1] }, attempt);
    if (status >= 200 && status < 300) return {};
    if (status === 429 || status >= 500) throw recoverable(`the gateway: HTTP ${status}`);
    throw fatal(`the gateway: HTTP ${status}`);
  },
};
