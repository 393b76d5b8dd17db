// A reader of feedback built against tests/compat/wit-1.1.0. It must not be changed.
import { publicUrl } from "openedx:ace/incoming@1.1.0";
import type { Event, Received, Request } from "openedx:ace/incoming@1.1.0";
import { verify, verifyWith } from "openedx:ace/signatures@1.1.0";

const text = (bytes: Uint8Array): string => String.fromCharCode(...bytes);
const utf8 = (text: string): Uint8Array => Uint8Array.from(text, (character) => character.charCodeAt(0));
const hex = (text: string): Uint8Array => Uint8Array.from(text.match(/../g) ?? [], (digits) => parseInt(digits, 16));

export const feedback = {
  enabled(): void {
    if (publicUrl() === undefined) throw "set server.public-url";
  },

  receive(request: Request): Received {
    try {
      return read(request);
    } finally {
      request[Symbol.dispose]();
    }
  },
};

function read(request: Request): Received {
  if (request.method() === "GET") {
    const body = utf8(`${publicUrl() ?? "-"} ${request.url() ?? "-"} ${request.query() ?? "-"}`);
    return { events: [], answer: { status: 202, headers: [["content-type", "text/plain"]], body } };
  }
  const body = request.body();
  const [signature = ""] = request.header("X-Signature");
  if (!verify("provider", "hmac-sha256", body, hex(signature))) throw { tag: "refused", val: "the signature is wrong" };
  if (body.length === 0) throw { tag: "malformed", val: "there is no event" };
  if (text(body) === "later") throw { tag: "unavailable", val: refusal() };
  const event: Event = {
    id: text(body),
    kind: "bounced",
    at: request.receivedAt(),
    messageUuid: "00000000-0000-4000-8000-000000000001",
    providerId: request.path().slice(1),
    messageId: "<m@example.com>",
    address: ["email", "zoe@learner.example"],
    isPermanent: true,
    isVouched: true,
    reason: `${request.headers().length} headers`,
    detail: '{"frozen":true}',
  };
  return { events: [event], answer: undefined };
}

// What verify-with says of a key that is none.
function refusal(): string {
  try {
    return String(verifyWith(utf8("no key"), "ed25519", utf8(""), utf8("")));
  } catch (error) {
    return (error as { payload: { tag: string } }).payload.tag;
  }
}
