// Quiet hours: what can wait is delayed until the recipient's night is over.

import { get } from "openedx:ace/config@1.1.0";
import { offsetMs } from "openedx:ace/time-zones@1.1.0";

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;

let read;

// What the config says: read at the first call, since the top level of a module runs when the component is built.
function settings() {
  return (read ??= readSettings());
}

function readSettings() {
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
    throw refusal("time-zone", error.payload);
  }
  return settings;
}

const refusal = (key, why) => `config key "${key}": ${why}`;

// Milliseconds since midnight.
function timeOfDay(key) {
  const [, hour, minute] = /^([01]\d|2[0-3]):([0-5]\d)$/.exec(get(key) ?? "") ?? [];
  if (hour === undefined) throw refusal(key, 'it must be a time of day such as "22:00"');
  return (Number(hour) * 60 + Number(minute)) * MINUTE;
}

function channelTypes(key) {
  const isType = (type) => typeof type === "string" && /^(\*|[a-z0-9_-]+)$/.test(type);
  const text = get(key) ?? "";
  const types = text.startsWith("[") ? JSON.parse(text) : [];
  if (types.length === 0 || !types.every(isType)) {
    throw refusal(key, 'it must be a list of channel types such as ["push", "sms"]');
  }
  return types;
}

// Truth as edx-ace has it: nothing that is empty is true.
function isTrue(json) {
  const value = JSON.parse(json ?? "null");
  return Boolean(value) && (typeof value !== "object" || Object.keys(value).length > 0);
}

// The recipient's own zone where the message names one that exists.
function zoneOf(named, at) {
  const zone = JSON.parse(named ?? "null");
  if (typeof zone !== "string") return settings().zone;
  try {
    offsetMs(zone, at);
    return zone;
  } catch {
    return settings().zone;
  }
}

function isQuiet(time) {
  const { start, end } = settings();
  return start < end ? start <= time && time < end : start <= time || time < end;
}

// The moment at which the zone's clocks show a time. One that they skip comes as much later as they skip.
function moment(local, zone, offset) {
  const guess = local - offset;
  const then = offsetMs(zone, guess);
  const better = local - then;
  return offsetMs(zone, better) === then ? better : guess;
}

const clock = (time) => new Date(time).toISOString().slice(11, 16);

export const policy = {
  enabled() {
    settings();
  },

  check(message) {
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
