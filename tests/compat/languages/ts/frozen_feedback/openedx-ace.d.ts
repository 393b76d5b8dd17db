// The part of openedx:ace@1.1.0 that the reader of feedback needs.

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
    receivedAt(): number;
  }

  export interface Event {
    id: string;
    kind: string;
    at?: number;
    messageUuid?: string;
    providerId?: string;
    messageId?: string;
    address?: [string, string];
    isPermanent: boolean;
    isVouched: boolean;
    reason?: string;
    detail?: string;
  }

  export interface Received {
    events: Event[];
    answer?: { status: number; headers: [string, string][]; body: Uint8Array };
  }
}

declare module "openedx:ace/signatures@1.1.0" {
  export function verify(credential: string, algorithm: string, data: Uint8Array, signature: Uint8Array): boolean;
  export function verifyWith(key: Uint8Array, algorithm: string, data: Uint8Array, signature: Uint8Array): boolean;
}
