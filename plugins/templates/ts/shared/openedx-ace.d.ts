// The package openedx:ace@1.1.0 as QuickJS sees it: 64-bit numbers are numbers, an option is `undefined` or left out, and an
// error that an import returns is thrown with its value in `payload`. The words of each item stand in wit/.

declare module "openedx:ace/config@1.1.0" {
  /** A string comes as it is, everything else as JSON text. */
  export function get(key: string): string | undefined;
}

declare module "openedx:ace/logging@1.1.0" {
  export function log(level: "debug" | "info" | "warn" | "error", message: string): void;
}

declare module "openedx:ace/time-zones@1.1.0" {
  /** Milliseconds east of Greenwich. Throws where the zone is unknown. */
  export function offsetMs(zone: string, at: number): number;
}

declare module "openedx:ace/keyvalue@1.1.0" {
  /** What `payload` holds. */
  export type KeyvalueError = { tag: "denied" | "quota" | "unavailable"; val: string };
  export function get(bucket: string, key: string): Uint8Array | undefined;
  export function set(bucket: string, key: string, value: Uint8Array, ttlMs?: number): void;
  function remove(bucket: string, key: string): void;
  export { remove as delete };
  export function increment(bucket: string, key: string, by: number, ttlMs?: number, once?: string): number;
  export interface Counted {
    at: number;
    total: number;
    firstTime: boolean;
  }
  export function countOnce(bucket: string, key: string, token: string, by: number, ttlMs?: number): Counted;
  export interface Place {
    isGranted: boolean;
    used: number;
    nextFree?: number;
  }
  export function takePlace(bucket: string, key: string, token: string, limit: number, windowMs: number): Place;
  export function givePlaceBack(bucket: string, key: string, token: string): void;
}

declare module "openedx:ace/http@1.1.0" {
  export interface Request {
    method: string;
    url: string;
    headers: [string, string][];
    body?: Uint8Array;
    timeoutMs?: number;
  }

  export interface Response {
    status: number;
    headers: [string, string][];
    body: Uint8Array;
  }

  /** What `payload` holds. */
  export type HttpError =
    | { tag: "denied" | "invalid" | "connection"; val: string }
    | { tag: "timed-out"; val?: undefined }
    | { tag: "too-large"; val: number };
  export function fetch(request: Request): Response;
}

declare module "openedx:ace/authorized-http@1.1.0" {
  import type { HttpError, Request, Response } from "openedx:ace/http@1.1.0";
  /** What `payload` holds. */
  export type AuthorizedError =
    | { tag: "http"; val: HttpError }
    | { tag: "rejected"; val: string }
    | { tag: "unavailable"; val: { message: string; nextAttemptTime?: number } };
  export function fetch(request: Request, credential: string): Response;
}

declare module "openedx:ace/signatures@1.1.0" {
  /** What `payload` holds. */
  export type SignatureError = { tag: "denied" | "invalid"; val: string };
  export function verify(credential: string, algorithm: string, data: Uint8Array, signature: Uint8Array): boolean;
  export function verifyWith(key: Uint8Array, algorithm: string, data: Uint8Array, signature: Uint8Array): boolean;
}

declare module "openedx:ace/delivery@1.1.0" {
  /** JSON text, as delivery.js writes it. */
  export function noteOutcome(outcome: string): void;
  export function notedOutcomes(): string;
  /** `until`: milliseconds since 1970. */
  export function holdChannel(until: number | undefined, reason: string): void;
}

declare module "openedx:ace/messages@1.1.0" {
  export interface Recipient {
    userId?: string;
    lmsUserId?: number;
    emailAddress?: string;
    contacts: [string, string][];
  }

  export interface Message extends Disposable {
    uuid(): string;
    sendUuid(): string | undefined;
    appLabel(): string;
    name(): string;
    uniqueName(): string;
    language(): string | undefined;
    expirationTime(): number | undefined;
    recipient(): Recipient | undefined;
    headers(): [string, string][];
    /** A part of the options as JSON text, by RFC 6901 pointer. */
    options(pointer: string): string | undefined;
    /** A part of the context as JSON text, by RFC 6901 pointer. */
    context(pointer: string): string | undefined;
    toJson(): string;
  }
}

declare module "openedx:ace/policy@1.1.0" {
  export interface PolicyResult {
    deny: { channelType: string; reason?: string }[];
    /** `notBefore`: milliseconds since 1970. */
    delay: { channelType: string; notBefore: number; reason?: string }[];
  }
}

declare module "openedx:ace/channel@1.1.0" {
  export interface ChannelInfo {
    channelType: string;
    templateFiles: { name: string; required: boolean }[];
  }

  export interface ActionLink {
    url: string;
    text: string;
    unsubscribe: boolean;
  }

  export interface Attempt {
    number: number;
    idempotencyKey: string;
  }

  export interface Receipt {
    providerId?: string;
    /** JSON text. */
    detail?: string;
  }

  /** File name and text. */
  export type Rendered = [string, string][];

  /** To be thrown. */
  export type DeliveryError =
    | { tag: "recoverable"; val: { message: string; nextAttemptTime?: number } }
    | { tag: "fatal" | "skipped"; val: string };
}

declare module "openedx:ace/recipient-resolver@1.1.0" {
  import type { Recipient } from "openedx:ace/messages@1.1.0";

  export interface Page {
    items: { key?: string; recipient: Recipient; language?: string; userContext?: string }[];
    next?: string;
  }
}

declare module "openedx:ace/incoming@1.1.0" {
  export function publicUrl(): string | undefined;

  export interface Request extends Disposable {
    method(): string;
    url(): string | undefined;
    path(): string;
    query(): string | undefined;
    header(name: string): string[];
    headers(): [string, string][];
    body(): Uint8Array;
    /** Milliseconds since 1970. */
    receivedAt(): number;
  }
}

declare module "openedx:ace/feedback@1.1.0" {
  export interface Event {
    id: string;
    kind: string;
    /** Milliseconds since 1970. */
    at?: number;
    messageUuid?: string;
    providerId?: string;
    messageId?: string;
    /** The kind and the address. */
    address?: [string, string];
    isPermanent: boolean;
    isVouched: boolean;
    reason?: string;
    /** JSON text. */
    detail?: string;
  }

  export interface Received {
    events: Event[];
    answer?: { status: number; headers: [string, string][]; body: Uint8Array };
  }

  /** To be thrown. */
  export type FeedbackError = { tag: "refused" | "malformed" | "unavailable"; val: string };
}
