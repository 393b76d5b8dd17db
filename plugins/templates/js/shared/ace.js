// Small helpers over the interface: settings, parts of a message, facts, HTTP. What a plugin exports is its own. Every function
// works in a policy, a channel and a resolver; what needs a grant says so. What is not there is undefined, where an import may answer
// null.

import { fetch as fetchAuthorized } from "openedx:ace/authorized-http@1.1.0";
import { get as config } from "openedx:ace/config@1.1.0";
import { fetch } from "openedx:ace/http@1.1.0";
import * as keyvalue from "openedx:ace/keyvalue@1.1.0";

/** @typedef {import("openedx:ace/messages@1.1.0").Message} Message */
/** @typedef {import("openedx:ace/channel@1.1.0").DeliveryError} DeliveryError */
/** @typedef {import("openedx:ace/http@1.1.0").HttpError} HttpError */
/** @typedef {import("openedx:ace/http@1.1.0").Request} Request */
/** @typedef {import("openedx:ace/http@1.1.0").Response} Response */
/** @typedef {import("openedx:ace/keyvalue@1.1.0").Counted} Counted */
/** @typedef {import("openedx:ace/keyvalue@1.1.0").Place} Place */

/**
 * A setting or secret: a text as it is, anything else as JSON text.
 * @param {string} key
 * @returns {string | undefined}
 */
export const setting = (key) => config(key) ?? undefined;

/**
 * A setting that is a list, a number, an object: read as JSON, or undefined where it is not set or no JSON.
 * @param {string} key
 * @returns {any}
 */
export function settingJson(key) {
  try {
    return parsed(setting(key));
  } catch {
    return undefined;
  }
}

/**
 * A setting without which the plugin cannot work; throws what the operator should read. For `enabled`, first.
 * @param {string} key
 * @returns {string}
 */
export function required(key) {
  const value = setting(key);
  if (value === undefined) throw `config key "${key}": it is not set`;
  return value;
}

/**
 * Reads a message (or a request of feedback) and disposes of it, whatever happens: one that is not disposed of takes up a handle.
 * @template {Disposable} M
 * @template T
 * @param {M} message
 * @param {(message: M) => T} read
 * @returns {T}
 */
export function reading(message, read) {
  try {
    return read(message);
  } finally {
    message[Symbol.dispose]();
  }
}

/**
 * A part of the options by RFC 6901 pointer ("/reply_to"), as a value; undefined where it is not there, or null.
 * @param {Message} message
 * @param {string} pointer
 * @returns {any}
 */
export const option = (message, pointer) => parsed(message.options(pointer));

/**
 * A part of the context, as `option` does it.
 * @param {Message} message
 * @param {string} pointer
 * @returns {any}
 */
export const context = (message, pointer) => parsed(message.context(pointer));

/**
 * Whether Python would call a value true, as edx-ace does with options: an empty list or object is not.
 * @param {any} value
 * @returns {boolean}
 */
export const isTrue = (value) =>
  typeof value === "object" && value !== null ? Object.keys(value).length > 0 : Boolean(value);

/**
 * The first address of a kind ("phone") that the sender gave.
 * @param {Message} message
 * @param {string} kind
 * @returns {string | undefined}
 */
export const contact = (message, kind) => message.recipient()?.contacts.find(([of]) => of === kind)?.[1];

/**
 * A fact as text; undefined where there is none. Throws a text if the bucket cannot be read or the fact is not UTF-8. Needs the bucket
 * for reading.
 * @param {string} bucket
 * @param {string} key
 * @returns {string | undefined}
 */
export function fact(bucket, key) {
  return asked(() => {
    const value = keyvalue.get(bucket, key);
    return value ? text(value) : undefined;
  });
}

/**
 * Adds 1 to a counter once for each token (a message's uuid), and tells what that token was counted as: the same at each repetition.
 * `ttlMs`: how long a counter lives that this call makes. Throws a text where it cannot be counted. Needs the bucket for writing.
 * @param {string} bucket
 * @param {string} key
 * @param {string} token
 * @param {number} [ttlMs]
 * @returns {Counted}
 */
export const countOnce = (bucket, key, token, ttlMs) =>
  asked(() => keyvalue.countOnce(bucket, key, token, 1, ttlMs));

/**
 * Takes one of `limit` places within the last `windowMs` milliseconds for a token (a message's uuid): a cap that starves nobody,
 * since a token that gets none uses none. Throws a text where that cannot be said. Needs the bucket for writing.
 * @param {string} bucket
 * @param {string} key
 * @param {string} token
 * @param {number} limit
 * @param {number} windowMs
 * @returns {Place}
 */
export const takePlace = (bucket, key, token, limit, windowMs) =>
  asked(() => keyvalue.takePlace(bucket, key, token, limit, windowMs));

/**
 * Gives the place of a token back; none is no error. Throws a text where it cannot. Needs the bucket for writing.
 * @param {string} bucket
 * @param {string} key
 * @param {string} token
 */
export const givePlaceBack = (bucket, key, token) => asked(() => keyvalue.givePlaceBack(bucket, key, token));

/**
 * What the store answers; its error is thrown as a text for the operator.
 * @template T
 * @param {() => T} ask
 * @returns {T}
 */
function asked(ask) {
  try {
    return ask();
  } catch (error) {
    const { payload } = /** @type {{ payload?: { tag: string, val: string } }} */ (error);
    throw `keyvalue: ${payload?.val ?? error}`;
  }
}

/**
 * Text as bytes; half of a surrogate pair becomes U+FFFD. (QuickJS has no TextEncoder.)
 * @param {string} value
 * @returns {Uint8Array}
 */
export function utf8(value) {
  const bytes = unescape(encodeURIComponent(value.toWellFormed()));
  return Uint8Array.from({ length: bytes.length }, (_, at) => bytes.charCodeAt(at));
}

/**
 * Bytes as text. Throws a URIError if they are not UTF-8.
 * @param {Uint8Array} bytes
 * @returns {string}
 */
export function text(bytes) {
  let binary = "";
  for (let at = 0; at < bytes.length; at += 4096) {
    binary += Reflect.apply(String.fromCharCode, undefined, bytes.subarray(at, at + 4096));
  }
  return decodeURIComponent(escape(binary));
}

/**
 * Reads JSON from outside, such as the body of a request. Undefined if it is not JSON in UTF-8; half of a surrogate pair, a number
 * that a double cannot hold, and more than 127 nested lists and objects are not accepted. Its texts may be anything: look them up in
 * a Map, because an object has keys of its own.
 * @param {Uint8Array} bytes
 * @returns {any}
 */
export function fromJson(bytes) {
  try {
    const source = text(bytes);
    return isAccepted(source) ? JSON.parse(source) : undefined;
  } catch {
    return undefined;
  }
}

/** @param {string} source */
function isAccepted(source) {
  let depth = 0;
  for (const [token] of source.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"?|[[{\]}]|\d[\d.eE+-]{4,}/g)) {
    if (token === "[" || token === "{") depth++;
    else if (token === "]" || token === "}") depth--;
    else if (token[0] !== '"' && !Number.isFinite(Number(token))) return false;
    if (depth > 127) return false;
  }
  const half = /\\u[dD][89a-fA-F]/;
  return !half.test(source) || !half.test(source.replace(/\\[^u]|\\u[dD][89abAB]..\\u[dD][c-fC-F]../g, ""));
}

/**
 * To be thrown by `deliver`: never going to work.
 * @param {string} why
 * @returns {DeliveryError}
 */
export const fatal = (why) => ({ tag: "fatal", val: why });

/**
 * To be thrown by `deliver`: it may pass. `nextAttemptTime`: when the other side said to come back, in milliseconds since 1970.
 * @param {string} message
 * @param {number} [nextAttemptTime]
 * @returns {DeliveryError}
 */
export const recoverable = (message, nextAttemptTime) => ({ tag: "recoverable", val: { message, nextAttemptTime } });

/**
 * To be thrown by `deliver`: there is nothing to do, no address of this kind.
 * @param {string} why
 * @returns {DeliveryError}
 */
export const skipped = (why) => ({ tag: "skipped", val: why });

/**
 * For `deliver`: one request whose answer must be a success (2xx). Anything else is thrown as what happens next: 408, 425, 429,
 * 5xx, time-outs, broken connections and what is wrong with a credential are recoverable, the rest is fatal. Needs the grant for the URL.
 * @param {Request} request
 * @param {string} [credential] that the host adds: the plugin's own name for it
 * @returns {Response}
 */
export function fetchOk(request, credential) {
  let response;
  try {
    response = credential === undefined ? fetch(request) : fetchAuthorized(request, credential);
  } catch (error) {
    const { payload } = /** @type {{ payload?: import("openedx:ace/authorized-http@1.1.0").AuthorizedError }} */ (error);
    if (payload?.tag === "rejected") throw recoverable(`the credential is rejected: ${payload.val}`);
    if (payload?.tag === "unavailable") throw recoverable(`no token: ${payload.val.message}`, payload.val.nextAttemptTime);
    const failure = payload?.tag === "http" ? payload.val : /** @type {HttpError | undefined} */ (payload);
    if (failure?.tag === "timed-out") throw recoverable("http: no answer in time");
    if (failure?.tag === "connection") throw recoverable(`http: connection failed: ${failure.val}`);
    throw fatal(`http: ${failure?.val ?? error}`);
  }
  const { status } = response;
  if (status >= 200 && status < 300) return response;
  const why = `${request.url} answered ${status}`;
  throw [408, 425, 429].includes(status) || status >= 500 ? recoverable(why) : fatal(why);
}

/**
 * For `deliver`: `fetchOk` of a POST with a JSON body.
 * @param {string} url
 * @param {unknown} body
 * @param {[string, string][]} [headers]
 * @param {string} [credential]
 * @returns {Response}
 */
export const postJson = (url, body, headers = [], credential = undefined) =>
  fetchOk(
    {
      method: "POST",
      url,
      headers: [["content-type", "application/json"], ...headers],
      body: utf8(JSON.stringify(body)),
    },
    credential,
  );

/**
 * @param {string | undefined} json
 * @returns {any}
 */
const parsed = (json) => JSON.parse(json ?? "null") ?? undefined;
