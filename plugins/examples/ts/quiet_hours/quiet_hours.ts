// Quiet hours: what can wait is delayed until the recipient's night is over.

import { get } from "openedx:ace/config@1.1.0";
import { offsetMs } from "openedx:ace/time-zones@1.1.0";
import type { Message } from "openedx:ace/messages@1.1.0";
import type { Policy, PolicyResult } from "openedx:ace/policy@1.1.0";

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;

/** What the config says; the times are milliseconds since midnight. */
interface Settings {
  start: number;
  end: number;
  zone: string;
  channelTypes: string[];
}

let read: Settings | undefined;

/** Read at the first call, since the top level of a module runs when the component is built. */
function settings(): Settings {
  return (read ??= readSettings());
}

function readSettings(): Settings {
  const settings = {
    start: timeOfDay("start"),
    end: timeOfDay("end"),
    zone: get("time-zone") ?? "",
    channelTypes: channelTypes("channel-types"),
  };
  if (settings.start === settings.end) throw refusal("end", 'it is the same as "start": no hour would be quiet');
  try {
    offsetMs(settings.zone, 0);
  } catch (error) {
    throw refusal("time-zone", (error as { payload: string }).payload);
  }
  return settings;
}

function refusal(key: string, why: string): string {
  return `config key "${key}": ${why}`;
}

function timeOfDay(key: string): number {
  const [, hour, minute] = /^([01]\d|2[0-3]):([0-5]\d)$/.exec(get(key) ?? "") ?? [];
  if (hour === undefined) throw refusal(key, 'it must be a time of day such as "22:00"');
  return (Number(hour) * 60 + Number(minute)) * MINUTE;
}

function channelTypes(key: string): string[] {
  const text = get(key) ?? "";
  const types: unknown[] = text.startsWith("[") ? JSON.parse(text) : [];
  if (types.length === 0 || !types.every(isChannelType)) {
    throw refusal(key, 'it must be a list of channel types such as ["push", "sms"]');
  }
  return types;
}

function isChannelType(value: unknown): value is string {
  return typeof value === "string" && /^(\*|[a-z0-9_-]+)$/.test(value);
}

/** Truth as edx-ace has it: nothing that is empty is true. */
function isTrue(json: string | undefined): boolean {
  const value: unknown = JSON.parse(json ?? "null");
  return Boolean(value) && (typeof value !== "object" || Object.keys(value as object).length > 0);
}

/** The recipient's own zone where the message names one that exists. */
function zoneOf(named: string | undefined, at: number): string {
  const zone: unknown = JSON.parse(named ?? "null");
  if (typeof zone !== "string") return settings().zone;
  try {
    offsetMs(zone, at);
    return zone;
  } catch {
    return settings().zone;
  }
}

function isQuiet(time: number): boolean {
  const { start, end } = settings();
  return start < end ? start <= time && time < end : start <= time || time < end;
}

/** The moment at which the zone's clocks show a time. One that they skip comes as much later as they skip. */
function moment(local: number, zone: string, offset: number): number {
  const guess = local - offset;
  const then = offsetMs(zone, guess);
  const better = local - then;
  return offsetMs(zone, better) === then ? better : guess;
}

function clock(time: number): string {
  return new Date(time).toISOString().slice(11, 16);
}

export const policy: Policy = {
  enabled(): void {
    settings();
  },

  check(message: Message): PolicyResult {
    const isTransactional = isTrue(message.options("/transactional"));
    const named = message.context("/time_zone");
    message[Symbol.dispose]();
    if (isTransactional) return { deny: [], delay: [] };

    const now = Date.now();
    const zone = zoneOf(named, now);
    const offset = offsetMs(zone, now);
    const time = (now + offset) % DAY;
    if (!isQuiet(time)) return { deny: [], delay: [] };

    const { end, channelTypes } = settings();
    const wait = (end - time + DAY) % DAY;
    const notBefore = moment(now + offset + wait, zone, offset);
    const reason = `quiet hours until ${clock(end)} in ${zone}`;
    return { deny: [], delay: channelTypes.map((channelType) => ({ channelType, notBefore, reason })) };
  },
};
