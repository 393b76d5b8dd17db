"""Resolves a list of user ids."""

import json
from typing import Any

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.recipient_resolver import Page, Resolved, ResolveError_Fatal
from wit_world.imports.common import Recipient


def is_id(value: Any) -> bool:
    # For Python, True is an int too.
    return type(value) is int and -(2**63) <= value < 2**63


def resolved(id: int) -> Resolved:
    recipient = Recipient(user_id=str(id), lms_user_id=id, email_address=None, contacts=[])
    return Resolved(key=None, recipient=recipient, language=None, user_context=None)


class RecipientResolver(exports.RecipientResolver):
    def enabled(self) -> None:
        pass

    def resolve(self, message_type: str, arguments: str, cursor: str | None, limit: int) -> Page:
        ids = json.loads(arguments).get("user_ids")
        if not isinstance(ids, list) or not all(map(is_id, ids)):
            raise Err(ResolveError_Fatal('the argument "user_ids" is missing: a list of numbers is expected'))
        start = int(cursor or 0)
        end = min(len(ids), start + limit)
        return Page(items=[resolved(id) for id in ids[start:end]], next=str(end) if end < len(ids) else None)
