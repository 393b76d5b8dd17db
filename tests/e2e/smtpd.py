#!/usr/bin/env python3
"""A real SMTP server on loopback for the end-to-end tests (needs aiosmtpd).

It prints `PORT n` when it listens, writes every mail as DIR/0001.eml and its envelope as DIR/0001.json, and serves until
its standard input is closed. The .json is written last, so when it exists, the mail is complete.

A client with rustls does not trust a certificate that is its own CA, so --tls-cert is issued by a test CA.

    python smtpd.py --dump DIR --tls-cert cert.pem --tls-key key.pem --require-starttls --user ann --password secret
"""

import argparse
import asyncio
import base64
import json
import logging
import os
import ssl
import sys
import warnings
from pathlib import Path

from aiosmtpd.smtp import SMTP, AuthResult


def address_and_code(text):
    address, separator, code = text.rpartition("=")
    if not separator or not code.isdigit() or len(code) != 3:
        raise argparse.ArgumentTypeError(f"{text!r}: expected ADDRESS=CODE, for example a@example.com=550")
    return address, code


def address_and_count(text):
    address, separator, count = text.rpartition("=")
    if not separator or not count.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r}: expected ADDRESS=N, for example a@example.com=2")
    return address, int(count)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dump", required=True, type=Path, metavar="DIR", help="where the mails are written")
    parser.add_argument("--tls-cert", metavar="PEM")
    parser.add_argument("--tls-key", metavar="PEM")
    parser.add_argument("--require-starttls", action="store_true", help="accepts nothing before STARTTLS")
    parser.add_argument("--implicit", action="store_true", help="TLS from the first byte")
    parser.add_argument("--user", help="accepts nothing before this user has logged in")
    parser.add_argument("--password", default="")
    parser.add_argument("--xoauth2", type=Path, metavar="FILE",
                        help="accepts nothing before --user has logged in by XOAUTH2 with the access token in this file")
    parser.add_argument("--refuse", type=address_and_code, action="append", default=[], metavar="ADDRESS=CODE",
                        help="answers CODE to this recipient; may be given more than once")
    parser.add_argument("--defer", type=address_and_count, action="append", default=[], metavar="ADDRESS=N",
                        help="answers 452 to this recipient the first N times; may be given more than once")
    parser.add_argument("--close-after", nargs=2, metavar=("data|dot", "N"),
                        help="closes the connection after DATA, or after the final dot and before the answer, "
                             "for the first N mails")
    parser.add_argument("--tempfail", type=int, default=0, metavar="N", help="answers 451 to the first N mails")
    parser.add_argument("--no-pipelining", action="store_true")
    options = parser.parse_args()
    if (options.require_starttls or options.implicit) and not (options.tls_cert and options.tls_key):
        parser.error("TLS needs --tls-cert and --tls-key")
    if options.close_after:
        where, count = options.close_after
        if where not in ("data", "dot") or not count.isdigit():
            parser.error("--close-after: expected data or dot, and a number")
        options.close_after = (where, int(count))
    return options


class Handler:
    """What the server does with each mail; aiosmtpd calls the methods by their names."""

    def __init__(self, options):
        self.options = options
        self.refuse = {address.lower(): code for address, code in options.refuse}
        self.deferrals = {address.lower(): count for address, count in options.defer}
        self.closings = dict([options.close_after]) if options.close_after else {}
        self.tempfails = options.tempfail
        self.count = 0

    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        if not self.options.no_pipelining:
            responses.insert(len(responses) - 1, "250-PIPELINING")
        return responses

    async def handle_RCPT(self, server, session, envelope, address, options):
        code = self.refuse.get(address.lower())
        if code:
            return f"{code} {code[0]}.1.1 <{address}> is refused here"
        if self.deferrals.get(address.lower(), 0) > 0:
            self.deferrals[address.lower()] -= 1
            return f"452 4.2.2 <{address}> is full"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server, session, envelope):
        if self.closes("dot"):
            server.transport.abort()
            return "421 closing"
        if self.tempfails > 0:
            self.tempfails -= 1
            return "451 4.3.0 try again later"
        self.count += 1
        self.dump(session, envelope)
        return f"250 2.0.0 Ok: queued as {self.count:04}"

    async def auth_XOAUTH2(self, server, arguments):
        """As Google and Microsoft define it: a refusal is a challenge with the reason, then 535."""
        response = base64.b64decode(arguments[1]) if len(arguments) > 1 else await server.challenge_auth("")
        token = self.options.xoauth2.read_text().strip()
        if response == f"user={self.options.user}\x01auth=Bearer {token}\x01\x01".encode():
            return AuthResult(success=True, auth_data=self.options.user)
        await server.challenge_auth('{"status":"401","schemes":"bearer"}')
        return AuthResult(success=False, handled=False)

    def closes(self, where):
        left = self.closings.get(where, 0)
        self.closings[where] = left - 1
        return left > 0

    def dump(self, session, envelope):
        base = self.options.dump / f"{self.count:04}"
        base.with_suffix(".eml").write_bytes(envelope.original_content)
        facts = {
            "from": envelope.mail_from,
            "recipients": envelope.rcpt_tos,
            "hello": session.host_name,
            "tls": session.ssl is not None or self.options.implicit,
            "user": session.auth_data if session.authenticated else None,
            "smtputf8": envelope.smtp_utf8,
        }
        temporary = base.with_suffix(".tmp")
        temporary.write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
        os.replace(temporary, base.with_suffix(".json"))


class Server(SMTP):
    async def smtp_DATA(self, arg):
        if self.envelope.rcpt_tos and self.event_handler.closes("data"):
            self.transport.abort()
            return
        await super().smtp_DATA(arg)


def tls_context(options):
    if not options.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.tls_cert, options.tls_key)
    return context


def settings(options, context):
    chosen = {"enable_SMTPUTF8": True, "hostname": "test.example",
              "auth_exclude_mechanism": ["PLAIN", "LOGIN"] if options.xoauth2 else ["XOAUTH2"]}
    if context and not options.implicit:
        chosen |= {"tls_context": context, "require_starttls": options.require_starttls}
    if options.user is not None:
        def authenticator(server, session, envelope, mechanism, login):
            name, password = login.login.decode(), login.password.decode()
            is_right = (name, password) == (options.user, options.password)
            return AuthResult(success=is_right, handled=False, auth_data=name)

        is_plain = not (options.require_starttls or options.implicit)
        # aiosmtpd does not notice that an implicit connection is encrypted.
        chosen |= {"authenticator": authenticator, "auth_required": True,
                   "auth_require_tls": not (is_plain or options.implicit)}
    return chosen


async def serve(options):
    options.dump.mkdir(parents=True, exist_ok=True)
    handler, context, loop = Handler(options), tls_context(options), asyncio.get_running_loop()
    listener = await loop.create_server(
        lambda: Server(handler, loop=loop, **settings(options, context)),
        "127.0.0.1", 0, ssl=context if options.implicit else None,
    )
    print(f"PORT {listener.sockets[0].getsockname()[1]}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    listener.close()


if __name__ == "__main__":
    # It warns about AUTH without TLS on every connection, which some tests use on loopback.
    warnings.simplefilter("ignore", UserWarning)
    # A client that aborts a TLS handshake, as in some tests, would print a traceback.
    logging.getLogger("mail.log").setLevel(logging.CRITICAL)
    asyncio.run(serve(arguments()))
