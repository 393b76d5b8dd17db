// Resolves a list of user ids.

const recipient = (id) => ({ userId: String(id), lmsUserId: id, contacts: [] });

export const recipientResolver = {
  enabled() {},

  resolve(messageType, args, cursor, limit) {
    const ids = JSON.parse(args).user_ids;
    if (!Array.isArray(ids) || !ids.every(Number.isSafeInteger)) {
      throw { tag: "fatal", val: 'the argument "user_ids" is missing: a list of numbers is expected' };
    }
    const from = Number(cursor ?? 0);
    const to = Math.min(ids.length, from + limit);
    const items = ids.slice(from, to).map((id) => ({ recipient: recipient(id) }));
    return { items, next: to < ids.length ? String(to) : undefined };
  },
};
