"""Checks tokens and signatures of ACE with independent implementations: google-auth, PyJWT, py-vapid, botocore and Python's hmac.

Reads a JSON object from stdin, and prints what is wrong. `tests/signatures.rs` starts it.
"""
import base64
import datetime
import hashlib
import hmac
import json
import sys
from unittest import mock

import google.auth.jwt
import jwt
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives import serialization
from py_vapid import Vapid02


def public(private_pem):
    key = serialization.load_pem_private_key(private_pem.encode(), password=None).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def google_account(case):
    claims = google.auth.jwt.decode(case["token"], certs=public(case["key"]), audience=case["audience"])
    same(claims["scope"], case["scope"], "scope")
    same(jwt.decode(case["token"], public(case["key"]), algorithms=["RS256"], audience=case["audience"]), claims, "claims")


def apns(case):
    claims = jwt.decode(case["token"], public(case["key"]), algorithms=["ES256"], options={"require": ["iss", "iat"]})
    same(claims["iss"], case["team"], "iss")
    same(jwt.get_unverified_header(case["token"]), {"alg": "ES256", "typ": "JWT", "kid": case["key_id"]}, "header")


def vapid(case):
    same(Vapid02.verify(case["authorization"]), True, "py-vapid's verdict")
    fields = dict(field.split("=", 1) for field in case["authorization"].removeprefix("vapid ").split(","))
    own = Vapid02.from_pem(case["key"].encode()).public_key
    point = own.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    same(fields["k"], base64.urlsafe_b64encode(point).rstrip(b"=").decode(), "k")
    jwt.decode(fields["t"], public(case["key"]), algorithms=["ES256"], audience=case["audience"])


def aws(case):
    request = AWSRequest(case["method"], case["url"], headers=dict(case["headers"]), data=case["body"].encode())
    at = datetime.datetime.fromtimestamp(case["time"], datetime.timezone.utc)
    with mock.patch("botocore.auth.get_current_datetime", return_value=at):
        SigV4Auth(Credentials(*case["credentials"]), case["service"], case["region"]).add_auth(request)
    for name in ("Authorization", "X-Amz-Date", "X-Amz-Security-Token"):
        same(case["signed"].get(name.lower()), request.headers.get(name), name)


def keyed_hash(case):
    key = base64.b64decode(case["key"])
    if "destination" in case:
        key = hmac.digest(key, case["destination"].encode(), "sha256")
    digest = hmac.new(key, case["content"].encode(), hashlib.sha256).digest()
    same(case["signature"], "v1," + base64.b64encode(digest).decode(), "signature")


def same(ours, theirs, what):
    if ours != theirs:
        raise ValueError(f"{what}: {ours!r} is not {theirs!r}")


def main():
    checks = {"google": google_account, "apns": apns, "vapid": vapid, "aws": aws, "hmac": keyed_hash}
    cases = json.load(sys.stdin)
    for case in cases:
        try:
            checks[case["check"]](case)
        except Exception as error:  # every kind of failure of five packages
            sys.exit(f"{case['check']} {case.get('url', '')}: {error!r}")
    print(len(cases))


if __name__ == "__main__":
    main()
