// Posts messages into a Slack channel by its incoming webhook.

import type { ActionLink, ChannelInfo, DeliveryError, Receipt, Rendered } from "openedx:ace/channel@1.1.0";
import { get } from "openedx:ace/config@1.1.0";
import { fetch, type HttpError, type Response } from "openedx:ace/http@1.1.0";
import type { Message } from "openedx:ace/messages@1.1.0";

const TIMEOUT_MS = 10_000;
/** Characters of Slack's longest error code, and some more. */
const CODE_CHARS_MAX = 60;
/** Nobody means a moment after this one, the end of the year 9999. */
const TIME_MAX = 253_402_300_799_000;

const fatal = (why: string): DeliveryError => ({ tag: "fatal", val: why });
const recoverable = (message: string, nextAttemptTime?: number): DeliveryError => ({
  tag: "recoverable",
  val: { message, nextAttemptTime },
});

/** Whoever knows it can post: a secret, which no text of ours holds. */
function webhookUrl(): string {
  const url = get("webhook-url");
  if (url === undefined) throw 'secret "webhook-url" is not set';
  if (!url.startsWith("https://")) throw 'secret "webhook-url": it is no https URL';
  return url;
}

/** The recipient, where they have a Slack member id among their contacts. */
function mention(message: Message): string {
  const id = message.recipient()?.contacts.find(([kind]) => kind === "slack")?.[1];
  if (id === undefined) return "";
  if (!/^[UW][A-Z0-9]+$/.test(id)) throw fatal('the contact "slack" is no member id such as U012AB3CD');
  return `<@${id}> `;
}

/** Slack's three control characters: without this a name such as `<!channel>` would call everybody. */
function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** QuickJS has no TextEncoder. */
function utf8(text: string): Uint8Array {
  const bytes = encodeURIComponent(text).replace(/%(..)/g, (_, hex: string) => String.fromCharCode(parseInt(hex, 16)));
  return Uint8Array.from(bytes, (byte) => byte.charCodeAt(0));
}

function post(text: string): Response {
  const headers: [string, string][] = [["content-type", "application/json"]];
  const body = utf8(JSON.stringify({ text }));
  try {
    return fetch({ method: "POST", url: webhookUrl(), headers, body, timeoutMs: TIMEOUT_MS });
  } catch (error) {
    const { payload } = error as { payload?: HttpError };
    if (payload === undefined) throw error;
    throw failure(payload);
  }
}

/** Time-outs and broken connections may pass, the rest does not. */
function failure(error: HttpError): DeliveryError {
  switch (error.tag) {
    case "timed-out":
      return recoverable("http: no answer in time");
    case "connection":
      return recoverable(`http: connection failed: ${error.val}`);
    case "too-large":
      return fatal(`http: the answer is longer than ${error.val} bytes`);
    default:
      return fatal(`http: ${error.val}`);
  }
}

function outcome(answer: Response): Receipt {
  const { status } = answer;
  if (status >= 200 && status < 300) return {};
  const code = codeOf(answer.body);
  const said = `Slack answered ${status}${code === undefined ? "" : `: ${code}`}`;
  throw status === 429 || status >= 500 ? recoverable(said, retryAfter(answer)) : fatal(said);
}

/** Slack's error codes are words in lower case (`no_service`); any other body is not Slack's. */
function codeOf(body: Uint8Array): string | undefined {
  const text = String.fromCharCode(...body.subarray(0, CODE_CHARS_MAX + 1));
  return text.length <= CODE_CHARS_MAX && /^[a-z_]+$/.test(text) ? text : undefined;
}

function retryAfter({ headers }: Response): number | undefined {
  const value = headers.find(([name]) => name === "retry-after")?.[1] ?? "";
  const seconds = /^[0-9]+(\.[0-9]+)?$/.exec(value.trim())?.[0];
  const at = Date.now() + Math.ceil(Number(seconds ?? NaN) * 1000);
  return at <= TIME_MAX ? at : undefined;
}

export const channel = {
  describe(): ChannelInfo {
    return { channelType: "slack", templateFiles: [{ name: "body.txt", required: true }] };
  },

  enabled(): void {
    webhookUrl();
  },

  overridesDeliveryForMessage(message: Message): boolean {
    message[Symbol.dispose]();
    return false;
  },

  actionLinks(message: Message): ActionLink[] {
    message[Symbol.dispose]();
    return [];
  },

  trackerImageSources(message: Message): string[] {
    message[Symbol.dispose]();
    return [];
  },

  deliver(message: Message, rendered: Rendered): Receipt {
    const [file] = rendered;
    let text: string;
    try {
      text = mention(message) + escaped(file?.[1] ?? "");
    } finally {
      message[Symbol.dispose]();
    }
    return outcome(post(text));
  },
};
