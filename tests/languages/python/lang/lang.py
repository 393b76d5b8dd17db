"""A policy that does what `context.do` of a message says."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.policy import Denial, PolicyResult
from wit_world.imports.messages import Message

# Authors should not rely on this: it lives as long as the instance.
calls = 0


def count() -> PolicyResult:
    return PolicyResult(deny=[Denial("push", str(calls))], delay=[])


def error() -> PolicyResult:
    raise Err("the facts are out of reach")


def trap() -> PolicyResult:
    raise TypeError("nothing the interface knows")


def spin() -> PolicyResult:
    while True:
        pass


def hoard() -> PolicyResult:
    treasure = []
    while True:
        treasure.append(bytearray(b"\x01") * (1 << 20))


def recurse() -> PolicyResult:
    return recurse()


HARMS = {harm.__name__: harm for harm in (count, error, trap, spin, hoard, recurse)}


class Policy(exports.Policy):
    def enabled(self) -> None:
        pass

    def check(self, message: Message) -> PolicyResult:
        global calls
        calls += 1
        with message:
            asked = message.context("/do")
        harm = HARMS.get(json.loads(asked)) if asked else None
        return harm() if harm else PolicyResult(deny=[], delay=[])
