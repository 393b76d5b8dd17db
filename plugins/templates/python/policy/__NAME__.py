"""Holds back what is not transactional."""

from ace import option, setting_json
from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.policy import Denial, PolicyResult
from wit_world.imports.messages import Message


def channel_types() -> list[str]:
    types = setting_json("channel-types")
    if not isinstance(types, list) or not all(isinstance(of, str) for of in types):
        # Err is the error; anything else that is raised is a trap.
        raise Err('config key "channel-types": a list such as ["push"] is expected')
    return types


class Policy(exports.Policy):
    def enabled(self) -> None:
        channel_types()

    def check(self, message: Message) -> PolicyResult:
        with message:
            if option(message, "/transactional"):
                return PolicyResult(deny=[], delay=[])
        return PolicyResult(deny=[Denial(of, "it is not transactional") for of in channel_types()], delay=[])
