"""Quiet hours: what can wait is delayed until the recipient's night is over."""

import json
import re
import time
from dataclasses import dataclass
from functools import cache

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.policy import Delay, PolicyResult
from wit_world.imports import config
from wit_world.imports.messages import Message
from wit_world.imports.time_zones import offset_ms

MINUTE = 60_000
DAY = 24 * 60 * MINUTE


@dataclass(frozen=True)
class Settings:
    """What the config says; the times are milliseconds since midnight."""

    start: int
    end: int
    zone: str
    channel_types: list[str]

    def is_quiet(self, time_of_day: int) -> bool:
        if self.start < self.end:
            return self.start <= time_of_day < self.end
        return self.start <= time_of_day or time_of_day < self.end


@cache
def settings() -> Settings:
    """Read at the first call: the top level of a module runs when the component is built."""
    read = Settings(
        start=time_of_day("start"),
        end=time_of_day("end"),
        zone=config.get("time-zone") or "",
        channel_types=channel_types("channel-types"),
    )
    if read.start == read.end:
        raise refusal("end", 'it is the same as "start": no hour would be quiet')
    try:
        offset_ms(read.zone, 0)
    except Err as error:
        raise refusal("time-zone", error.value) from None
    return read


def refusal(key: str, why: str) -> Err:
    return Err(f'config key "{key}": {why}')


def time_of_day(key: str) -> int:
    text = re.fullmatch(r"([01][0-9]|2[0-3]):([0-5][0-9])", config.get(key) or "")
    if not text:
        raise refusal(key, 'it must be a time of day such as "22:00"')
    return (int(text[1]) * 60 + int(text[2])) * MINUTE


def channel_types(key: str) -> list[str]:
    text = config.get(key) or ""
    types = json.loads(text) if text.startswith("[") else []
    if not types or not all(isinstance(t, str) and re.fullmatch(r"\*|[a-z0-9_-]+", t) for t in types):
        raise refusal(key, 'it must be a list of channel types such as ["push", "sms"]')
    return types


def zone_of(message: Message, now: int) -> str:
    """The recipient's own zone where the message names one that exists."""
    zone = json.loads(message.context("/time_zone") or "null")
    if not isinstance(zone, str):
        return settings().zone
    try:
        offset_ms(zone, now)
        return zone
    except Err:
        return settings().zone


def moment(local: int, zone: str, offset: int) -> int:
    """When the zone's clocks show a time. One that they skip comes as much later as they skip."""
    guess = local - offset
    then = offset_ms(zone, guess)
    better = local - then
    return better if offset_ms(zone, better) == then else guess


class Policy(exports.Policy):
    def enabled(self) -> None:
        settings()

    def check(self, message: Message) -> PolicyResult:
        now = time.time_ns() // 1_000_000
        with message:
            is_transactional = bool(json.loads(message.options("/transactional") or "null"))
            zone = zone_of(message, now)
        offset = offset_ms(zone, now)
        of_day = (now + offset) % DAY
        if is_transactional or not settings().is_quiet(of_day):
            return PolicyResult(deny=[], delay=[])

        end = settings().end
        not_before = moment(now + offset + (end - of_day) % DAY, zone, offset)
        reason = f"quiet hours until {end // MINUTE // 60:02}:{end // MINUTE % 60:02} in {zone}"
        return PolicyResult(deny=[], delay=[Delay(t, not_before, reason) for t in settings().channel_types])
