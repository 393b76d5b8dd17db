"""Reads the events of a mail provider, which posts them to `/v1/feedback/__NAME__/SECRET`."""

import hmac
import json

from ace import required
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
        if not hmac.compare_digest(path.encode(), f"/{required('path-secret')}".encode()):
            raise Err(FeedbackError_Refused("the path does not end with the secret"))
        return Received(events=[event(body)], answer=None)


def event(body: bytes) -> Event:
    """One event. It is not vouched for, so it is shown but suppresses nobody: set `is_vouched` once a signature was verified."""
    try:
        fields = json.loads(body)
    except ValueError as error:
        raise Err(FeedbackError_Malformed(f"the body: {error}")) from None
    if not isinstance(fields, dict):
        raise Err(FeedbackError_Malformed("the body: it is no object"))
    id, code, email = fields.get("id"), fields.get("code"), fields.get("email")
    if not isinstance(id, str):
        raise Err(FeedbackError_Malformed('the body: it has no text "id"'))
    kind = fields.get("type", "unknown")
    return Event(
        id=id,
        kind=KINDS.get(kind, kind),
        at=None,
        message_uuid=None,
        provider_id=None,
        message_id=fields.get("message"),
        address=None if email is None else ("email", email),
        is_permanent=str(code).startswith("5"),
        is_vouched=False,
        reason=code,
        detail=None,
    )
