"""Holds back what is not transactional."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.policy import Denial, PolicyResult
from wit_world.imports import config
from wit_world.imports.messages import Message


def channel_types() -> list[str]:
    text = config.get("channel-types") or ""
    if not text.startswith("["):
        # Err is the error; anything else that is raised is a trap.
        raise Err('config key "channel-types": a list such as ["push"] is expected')
    return json.loads(text)


class Policy(exports.Policy):
    def enabled(self) -> None:
        channel_types()

    def check(self, message: Message) -> PolicyResult:
        with message:
            is_transactional = json.loads(message.options("/transactional") or "null") is True
        if is_transactional:
            return PolicyResult(deny=[], delay=[])
        return PolicyResult(deny=[Denial(of, "it is not transactional") for of in channel_types()], delay=[])
