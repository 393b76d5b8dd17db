"""What Schemathesis does not know about the HTTP API: NDJSON bodies, and the existing messages and batches."""

import json

import schemathesis

# The messages and batches that tests/e2e/serve/openapi.rs has submitted.
THERE = [f"00000000-0000-0000-0000-{number:012x}" for number in range(1, 5)]
HEAD = {"message_type": {"app_label": "app", "name": "note"}}


@schemathesis.serializer("application/x-ndjson")
def ndjson(ctx, value):
    """One value on a line of its own; in a batch after its head."""
    lines = [HEAD, value] if ctx.case.path == "/v1/batches" else [value]
    return "\n".join(json.dumps(line) for line in lines).encode()


@schemathesis.hook
def map_path_parameters(ctx, path_parameters):
    """Every other uuid is an existing one."""
    uuid = (path_parameters or {}).get("uuid")
    if isinstance(uuid, str):
        chosen = sum(uuid.encode(errors="replace")) % (2 * len(THERE))
        if chosen < len(THERE):
            path_parameters["uuid"] = THERE[chosen]
    return path_parameters
