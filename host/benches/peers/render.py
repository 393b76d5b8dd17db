#!/usr/bin/env python3
"""Renders the reference mail with Django and Jinja2, no message sent, and prints a JSON object: CPU microseconds a message.

    render.py MESSAGES.ndjson TERA_TEMPLATES COUNT

Django renders edx-ace's own way, through its renderer, half of the messages in Spanish, templates cached; `plain` is the same
in English alone. Jinja2 renders the templates of TERA_TEMPLATES, which are plain enough for both, without translations,
compiled once. Each is the median of five rounds after one to warm up.
"""
import itertools
import json
import os
import resource
import statistics
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
ROUNDS = 5
FILES = ("from_name.txt", "subject.txt", "body.html", "head.html", "body.txt")


def cpu_us(work, items, count):
    """CPU time of one call, the median of several rounds."""
    rounds = []
    for _ in range(ROUNDS + 1):
        before = resource.getrusage(resource.RUSAGE_SELF)
        for item in itertools.islice(itertools.cycle(items), count):
            work(item)
        after = resource.getrusage(resource.RUSAGE_SELF)
        rounds.append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e6 / count)
    return statistics.median(rounds[1:])


def django(lines, count):
    sys.path.insert(0, str(HERE / "django"))
    import catalogue

    with tempfile.TemporaryDirectory() as locale:
        catalogue.write(locale)
        os.environ |= {"PEER_BACKEND": "dummy", "PEER_SMTP_PORT": "25", "PEER_LOCALE": locale}
        os.environ["DJANGO_SETTINGS_MODULE"] = "peer_settings"
        import django

        django.setup()
        from edx_ace import presentation
        from edx_ace.channel.django_email import DjangoEmailChannel
        from edx_ace.message import Message

        channel = DjangoEmailChannel()
        messages = [Message.from_string(line) for line in lines]
        render = lambda message: presentation.render(channel, message)
        translated = cpu_us(render, messages, count)
        for message in messages:
            message.language = "en"
        return {"django": translated, "django_plain": cpu_us(render, messages, count)}


def jinja(lines, templates, count):
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates), autoescape=lambda name: name.endswith(".html"), auto_reload=False
    )
    messages = [json.loads(line) for line in lines]
    names = [[f"{m['app_label']}/edx_ace/{m['name']}/email/{file}" for file in FILES] for m in messages[:1]][0]

    def render(message):
        context = {"message": message, "channel": {"action_links": [], "tracker_image_sources": []}, **message["context"]}
        for name in names:
            environment.get_template(name).render(context)

    return {"jinja2": cpu_us(render, messages, count)}


def main():
    file, templates, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    print(json.dumps(django(lines, count) | jinja(lines, templates, count)))


if __name__ == "__main__":
    main()
