"""Sends COUNT messages of an NDJSON file through the real edx-ace, one after the other, and prints one JSON line of figures.

    bench_ace.py smtp|locmem|dummy FILE COUNT [--port PORT]

smtp sends over 127.0.0.1:PORT, a connection a message (Django's way); locmem builds the MIME and keeps it; dummy does
neither. Start-up and a warm-up are not measured. Reading a message from its JSON is part of cpu_us; what is left without it
is cpu_us_parsed.
"""
import argparse
import itertools
import json
import os
import resource
import sys
import tempfile
import time

sys.dont_write_bytecode = True
WARM_UP = 100


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backend", choices=["smtp", "locmem", "dummy"])
    parser.add_argument("file")
    parser.add_argument("count", type=int)
    parser.add_argument("--port", type=int, default=2525)
    return parser.parse_args()


def set_up(backend, port, locale):
    """Sets Django up and returns its mail module."""
    import catalogue

    catalogue.write(locale)
    os.environ |= {"PEER_BACKEND": backend, "PEER_SMTP_PORT": str(port), "PEER_LOCALE": locale}
    os.environ["DJANGO_SETTINGS_MODULE"] = "peer_settings"
    import django

    django.setup()
    from django.core import mail

    mail.outbox = []
    return mail


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main():
    given = arguments()
    with open(given.file, encoding="utf-8") as file:
        lines = list(itertools.islice((line for line in file if line.strip()), given.count))
    if not lines:
        sys.exit(f"bench_ace.py: no messages in {given.file}")
    with tempfile.TemporaryDirectory() as locale:
        measure(given, lines, set_up(given.backend, given.port, locale))


def measure(given, lines, mail):
    """Sends the messages and prints the figures."""
    from edx_ace import ace
    from edx_ace.message import Message
    from edx_ace.signals import ACE_MESSAGE_SENT

    def send(count):
        """Sends that many and returns the seconds of CPU that went into reading them."""
        parse = 0
        for number, line in enumerate(itertools.islice(itertools.cycle(lines), count), start=1):
            began = time.thread_time_ns()
            message = Message.from_string(line)
            parse += time.thread_time_ns() - began
            ace.send(message)
            if number % 1000 == 0:
                mail.outbox.clear()
        return parse / 1e9

    sent = []
    count_it = lambda **_: sent.append(1)  # noqa: E731
    ACE_MESSAGE_SENT.connect(count_it)
    send(WARM_UP)
    ACE_MESSAGE_SENT.disconnect(count_it)
    if len(sent) != WARM_UP:
        sys.exit(f"bench_ace.py: edx-ace sent {len(sent)} of {WARM_UP} messages in the warm-up")

    wall, cpu = time.perf_counter(), cpu_seconds()
    parse = send(given.count)
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    figures = {
        "n": given.count,
        "sent": given.count + WARM_UP,
        "wall_s": round(wall, 3),
        "msg_s": round(given.count / wall, 1),
        "cpu_us": round(cpu / given.count * 1e6, 1),
        "cpu_us_parsed": round((cpu - parse) / given.count * 1e6, 1),
        "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
