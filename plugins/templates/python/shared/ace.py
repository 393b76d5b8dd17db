"""Small helpers over the interface: settings, parts of a message, facts, HTTP. What a plugin exports is its own.

Every function works in a policy, a channel and a resolver, but for what a channel's `deliver` raises. What needs a grant says so.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any

from componentize_py_types import Err
from wit_world.imports import authorized_http, config, http, keyvalue
from wit_world.imports.common import Recipient, RecoverableError
from wit_world.imports.messages import Message

try:
    from wit_world.exports import channel
    from wit_world.imports import delivery
except ImportError:  # A world without a channel.
    channel = delivery = None


def setting(key: str) -> str | None:
    """A setting or secret: a text as it is, anything else as JSON text."""
    return config.get(key)


def setting_json(key: str) -> Any:
    """A setting that is a list, a number, an object: read as JSON, or None where it is not set or no JSON."""
    try:
        return parsed(config.get(key))
    except ValueError:
        return None


def required(key: str) -> str:
    """A setting without which the plugin cannot work; raises what the operator should read. For `enabled`, first."""
    value = config.get(key)
    if value is None:
        raise Err(f'config key "{key}": it is not set')
    return value


def option(message: Message, pointer: str) -> Any:
    """A part of the options by RFC 6901 pointer ("/reply_to"), as a value. None: it is not there, or null."""
    return parsed(message.options(pointer))


def context(message: Message, pointer: str) -> Any:
    """A part of the context, as `option` does it."""
    return parsed(message.context(pointer))


def contact(recipient: Recipient | None, kind: str) -> str | None:
    """The first address of a kind ("phone") that the sender gave."""
    contacts = recipient.contacts if recipient else []
    return next((address for of, address in contacts if of == kind), None)


def fact(bucket: str, key: str) -> str | None:
    """A fact as text. Raises a text if the bucket cannot be read or the fact is not UTF-8. Needs the bucket for reading."""
    value = asked(keyvalue.get, bucket, key)
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError as error:
        raise Err(f"keyvalue: the fact is not UTF-8: {error.reason}") from None


def count_once(bucket: str, key: str, token: str, ttl_ms: int | None = None) -> keyvalue.Counted:
    """Adds 1 to a counter once for each token (a message's uuid), and tells what that token was counted as.

    The answer is the same at each repetition. `ttl_ms`: how long a counter lives that this call makes. Raises a text where it cannot
    be counted. Needs the bucket for writing.
    """
    return asked(keyvalue.count_once, bucket, key, token, 1, ttl_ms)


def take_place(bucket: str, key: str, token: str, limit: int, window_ms: int) -> keyvalue.Place:
    """Takes one of `limit` places within the last `window_ms` milliseconds for a token (a message's uuid).

    A cap that starves nobody, since a token that gets none uses none. Raises a text where that cannot be said. Needs the bucket for
    writing.
    """
    return asked(keyvalue.take_place, bucket, key, token, limit, window_ms)


def give_place_back(bucket: str, key: str, token: str) -> None:
    """Gives the place of a token back; none is no error. Raises a text where it cannot. Needs the bucket for writing."""
    asked(keyvalue.give_place_back, bucket, key, token)


def asked(ask: Callable[..., Any], *arguments: Any) -> Any:
    """What the store answers; its error is raised as a text for the operator."""
    try:
        return ask(*arguments)
    except Err as error:
        raise Err(f"keyvalue: {error.value.value}") from None


def fatal(why: str) -> Err:
    """To be raised by `deliver`: never going to work."""
    return Err(channel.DeliveryError_Fatal(why))


def recoverable(message: str, next_attempt_time: int | None = None) -> Err:
    """To be raised by `deliver`: it may pass. `next_attempt_time`: when to come back, in milliseconds since 1970."""
    return Err(channel.DeliveryError_Recoverable(RecoverableError(message, next_attempt_time)))


def skipped(why: str) -> Err:
    """To be raised by `deliver`: there is nothing to do, no address of this kind."""
    return Err(channel.DeliveryError_Skipped(why))


def fetch_ok(request: http.Request, credential: str | None = None) -> http.Response:
    """For `deliver`: one request whose answer must be a success (2xx). Needs the grant for the URL.

    `credential` is the plugin's own name for one that the host adds. Anything else is raised as what happens next: 408, 425, 429,
    5xx, time-outs, broken connections and what is wrong with a credential are recoverable, the rest is fatal.
    """
    try:
        response = http.fetch(request) if credential is None else authorized_http.fetch(request, credential)
    except Err as error:
        match error.value:
            case authorized_http.AuthorizedError_Rejected(why):
                raise recoverable(f"the credential is rejected: {why}") from None
            case authorized_http.AuthorizedError_Unavailable(why):
                raise recoverable(f"no token: {why.message}", why.next_attempt_time) from None
            case authorized_http.AuthorizedError_Http(failure) | failure:
                raise _http_failure(failure) from None
    if 200 <= response.status < 300:
        return response
    why = f"{request.url} answered {response.status}"
    raise recoverable(why) if response.status in (408, 425, 429) or response.status >= 500 else fatal(why)


def _http_failure(failure: http.HttpError) -> Err:
    match failure:
        case http.HttpError_TimedOut():
            return recoverable("http: no answer in time")
        case http.HttpError_Connection(why):
            return recoverable(f"http: connection failed: {why}")
        case other:
            return fatal(f"http: {other.value}")


def post_json(
    url: str, body: Any, headers: list[tuple[str, str]] | None = None, credential: str | None = None
) -> http.Response:
    """For `deliver`: `fetch_ok` of a POST with a JSON body."""
    headers = [("content-type", "application/json"), *(headers or [])]
    return fetch_ok(http.Request("POST", url, headers, json.dumps(body).encode(), None), credential)


def note_outcome(
    kind: str, address: str, outcome: str, provider_id: str | None = None, code: str | None = None
) -> None:
    """For `deliver`: notes the outcome for one address of the message. It replaces an earlier note on the same address.

    `kind` is that of the recipient's contacts, or "email". `outcome` is "sent"; "dropped", if the address does not exist any more
    and the application should delete it; "failed", if it does not get this message; or "retry". Later attempts do not get addresses
    that were sent, dropped or failed. `provider_id` is the provider's id of the message to this address, `code` its error code.
    """
    note = {"kind": kind, "address": address, "outcome": outcome, "provider_id": provider_id, "code": code}
    delivery.note_outcome(json.dumps({key: value for key, value in note.items() if value is not None}))


def noted_outcomes() -> list[dict[str, str]]:
    """For `deliver`: the notes of earlier attempts of this message, with the arguments of `note_outcome` as keys."""
    return parsed(delivery.noted_outcomes())


def hold_channel(reason: str, until: int | None = None) -> None:
    """For `deliver`: stops the whole channel, until a time in milliseconds since 1970 or until a message gets through.

    `reason` is one line for the operator. Raise a recoverable error as well: it uses up no attempt of the message.
    """
    delivery.hold_channel(until, reason)


def parsed(text: str | None) -> Any:
    """JSON text as a value. None stays None."""
    return None if text is None else json.loads(text)


def from_json(body: bytes) -> Any:
    """Reads JSON from outside, such as the body of a request.

    Raises ValueError if it is not JSON in UTF-8; half of a surrogate pair, a number that a double cannot hold, and more than 127 nested
    lists and objects are not accepted.
    """
    text = body.decode()
    half = r"\\u[dD][89a-fA-F]"
    if re.search(half, text) and re.search(half, re.sub(r"\\[^u]|\\u[dD][89abAB]..\\u[dD][c-fC-F]..", "", text)):
        raise ValueError("half of a surrogate pair")
    depth = 0
    for bracket in re.findall(r"[\[{\]}]", re.sub(r'"[^"\\]*(?:\\.[^"\\]*)*"?', "", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > 127:
            raise ValueError("too many nested lists and objects")
    return json.loads(text, parse_int=_integer, parse_float=_finite, parse_constant=_finite)


def _integer(text: str) -> int:
    _finite(text)
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a double cannot hold a number")
    return value
