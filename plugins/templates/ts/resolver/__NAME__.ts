// Resolves a list of user ids.

import type { Recipient } from "openedx:ace/messages@1.1.0";
import type { Page } from "openedx:ace/recipient-resolver@1.1.0";

const recipient = (id: number): Recipient => ({ userId: String(id), lmsUserId: id, contacts: [] });

export const recipientResolver = {
  enabled(): void {},

  resolve(messageType: string, args: string, cursor: string | undefined, limit: number): Page {
    const ids: unknown = JSON.parse(args).user_ids;
    if (!Array.isArray(ids) || !ids.every(Number.isSafeInteger)) {
      throw { tag: "fatal", val: 'the argument "user_ids" is missing: a list of numbers is expected' };
    }
    const from = Number(cursor ?? 0);
    const to = Math.min(ids.length, from + limit);
    const items = ids.slice(from, to).map((id) => ({ recipient: recipient(id) }));
    return { items, next: to < ids.length ? String(to) : undefined };
  },
};
