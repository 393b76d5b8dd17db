#!/usr/bin/env python3
"""Sends push notifications with a vendor's own client, 64 at once, and prints `{"sent", "cpu_us", "per_s"}`.

    push.py firebase_admin|pywebpush PORT COUNT

The provider is a server on https://localhost:PORT; REQUESTS_CA_BUNDLE names its authority. A few are sent before the
measurement begins, and counted as sent.
"""
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

CONCURRENCY = 64
WARM = 200


def firebase_admin(url):
    import firebase_admin
    import google.auth.credentials
    from firebase_admin import credentials, messaging

    class Token(google.auth.credentials.Credentials):
        def refresh(self, _):
            self.token = "token"

    class Account(credentials.Base):
        def get_credential(self):
            return Token()

    messaging._MessagingService.FCM_URL = url + "/v1/projects/{0}/messages:send"
    app = firebase_admin.initialize_app(Account(), {"projectId": "campus-1"})
    notification = messaging.AndroidNotification(title="A reply", body="Zo\u00eb answered")
    return lambda n: messaging.send(messaging.Message(token=f"device-{n}", android=messaging.AndroidConfig(notification=notification)), app=app)


def pywebpush(url):
    import base64

    import requests
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from py_vapid import Vapid
    from pywebpush import webpush

    session, key, vapid = requests.Session(), ec.generate_private_key(ec.SECP256R1()), Vapid()
    session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=CONCURRENCY))
    vapid.generate_keys()
    point = key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    keys = {"p256dh": base64.urlsafe_b64encode(point).decode(), "auth": base64.urlsafe_b64encode(bytes(16)).decode()}
    return lambda n: webpush(
        {"endpoint": f"{url}/push/{n}", "keys": keys}, "Zo\u00eb answered", vapid_private_key=vapid, vapid_claims={"sub": "mailto:ops@campus.example"}, requests_session=session
    )


def main():
    client, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    send = {"firebase_admin": firebase_admin, "pywebpush": pywebpush}[client](f"https://localhost:{port}")
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        list(pool.map(send, range(WARM)))
        begun, before = time.monotonic(), time.process_time()
        list(pool.map(send, range(count)))
        took, cpu = time.monotonic() - begun, time.process_time() - before
    print(json.dumps({"sent": WARM + count, "cpu_us": cpu * 1e6 / count, "per_s": count / took}))


if __name__ == "__main__":
    main()
