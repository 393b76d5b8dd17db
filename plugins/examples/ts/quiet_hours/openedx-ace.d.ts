// The part of the package openedx:ace@1.1.0 that a policy needs, as QuickJS sees it: a timestamp is a number, and an error
// that an import returns is thrown with its text in `payload`.

declare module "openedx:ace/config@1.1.0" {
  /** A string comes as it is, everything else as JSON text. */
  export function get(key: string): string | undefined;
}

declare module "openedx:ace/time-zones@1.1.0" {
  /** Milliseconds east of Greenwich. Throws where the zone is unknown. */
  export function offsetMs(zone: string, at: number): number;
}

declare module "openedx:ace/logging@1.1.0" {
  export function log(level: "debug" | "info" | "warn" | "error", message: string): void;
}

declare module "openedx:ace/messages@1.1.0" {
  export interface Message extends Disposable {
    uuid(): string;
    sendUuid(): string | undefined;
    appLabel(): string;
    name(): string;
    uniqueName(): string;
    language(): string | undefined;
    expirationTime(): number | undefined;
    headers(): [string, string][];
    /** A part of the options as JSON text, by RFC 6901 pointer. */
    options(pointer: string): string | undefined;
    /** A part of the context as JSON text, by RFC 6901 pointer. */
    context(pointer: string): string | undefined;
    toJson(): string;
  }
}

declare module "openedx:ace/policy@1.1.0" {
  import type { Message } from "openedx:ace/messages@1.1.0";

  export interface Denial {
    channelType: string;
    reason?: string;
  }

  export interface Delay {
    channelType: string;
    /** Milliseconds since 1970. */
    notBefore: number;
    reason?: string;
  }

  export interface PolicyResult {
    deny: Denial[];
    delay: Delay[];
  }

  export interface Policy {
    /** Throws the text of its refusal. */
    enabled(): void;
    /** Throws the text of its fault. */
    check(message: Message): PolicyResult;
  }
}
