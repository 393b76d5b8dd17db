"""Reads the events of a mail provider, which posts them to `/v1/feedback/__NAME__/SECRET`."""

import hmac
from typing import Any

from ace import from_json, required
from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.feedback import Event, FeedbackError_Malformed, FeedbackError_Refused, Received
from wit_world.imports.incoming import Request

KINDS = {"bounce": "bounced", "complaint": "complained"}


class Feedback(exports.Feedback):
    def enabled(self) -> None:
        required("path-secret")

    def receive(self, request: Request) -> Received:
        with request:
            path, body = request.path(), request.body()
        secret = required("path-secret")
        if not secret or not hmac.compare_digest(path.encode(), f"/{secret}".encode()):
            raise Err(FeedbackError_Refused("the path does not end with the secret"))
        return Received(events=[event(body)], answer=None)


def event(body: bytes) -> Event:
    """One event. It is not vouched for, so it is shown but suppresses nobody: set `is_vouched` once a signature was verified."""
    # One event is short; a long body would only use up the time of the call.
    if len(body) > 16_384:
        raise Err(FeedbackError_Malformed("the body: it is longer than 16,384 bytes"))
    try:
        value = from_json(body)
    except ValueError:
        raise Err(FeedbackError_Malformed("the body: it is not JSON")) from None
    fields = value if isinstance(value, dict) else {}
    id, type, message, code, email = (accepted(fields.get(key)) for key in ("id", "type", "message", "code", "email"))
    if id is None:
        raise Err(FeedbackError_Malformed('the body: it has no text "id" of 1 to 1,024 bytes'))
    return Event(
        id=id,
        kind=KINDS.get(type, "unknown"),
        at=None,
        message_uuid=None,
        provider_id=None,
        message_id=message,
        address=None if email is None else ("email", email),
        is_permanent=code is not None and code.startswith("5"),
        is_vouched=False,
        reason=code,
        detail=None,
    )


def accepted(value: Any) -> str | None:
    """The host accepts ids and addresses of this length. Anything else is treated as missing."""
    return value if isinstance(value, str) and 1 <= len(value.encode()) <= 1024 else None
