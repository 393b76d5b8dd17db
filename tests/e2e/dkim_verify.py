#!/usr/bin/env python3
"""Verifies the DKIM signatures of a mail with dkimpy, which shares no code with ACE.

    python dkim_verify.py --keys DIR MAIL

DIR has the public keys in PEM, `SELECTOR_public.pem`. The mail is read as bytes. One JSON list is printed: for each signature, in order, its
selector and whether it is valid.
"""

import argparse
import base64
import json
from pathlib import Path

import dkim

ED25519_BYTES = 32


def record(keys, name):
    """The TXT record in DNS for `SELECTOR._domainkey.DOMAIN.`."""
    selector = name.decode().split("._domainkey.")[0]
    lines = (keys / f"{selector}_public.pem").read_text().splitlines()
    der = base64.b64decode("".join(lines[1:-1]))
    # An Ed25519 key is published without the structure around it (RFC 8463, section 4).
    is_ed25519 = len(der) < 2 * ED25519_BYTES
    kind, key = ("ed25519", der[-ED25519_BYTES:]) if is_ed25519 else ("rsa", der)
    return f"v=DKIM1; k={kind}; p={base64.b64encode(key).decode()}".encode()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", required=True, type=Path)
    parser.add_argument("mail", type=Path)
    options = parser.parse_args()
    verifier = dkim.DKIM(options.mail.read_bytes())
    results = []
    for index in range(sum(name.lower() == b"dkim-signature" for name, _ in verifier.headers)):
        try:
            is_valid = verifier.verify(index, dnsfunc=lambda name, timeout=5: record(options.keys, name))
        except dkim.DKIMException:
            is_valid = False
        results.append([verifier.selector.decode(), is_valid])
    print(json.dumps(results))


if __name__ == "__main__":
    main()
