#!/usr/bin/env python3
"""Renders the cases with Django itself and writes what it gives to golden/, one file for each file of cases.

    make.py            write them anew
    make.py --check    exit code 1 where one is not what Django gives

A case begins with a line `=== name [options]`. Options: a language, and the main file's name (main.html otherwise). A line
`@ {…}` may follow: the context, in which {"$date": "…"} is a date. Then comes the main file, and after `--- name` others.
"""

import datetime
import json
import pathlib
import re
import struct
import sys
import tempfile

import django
from django.conf import settings
from django.template import Context, Engine, Library
from django.utils import html, translation
from django.utils.safestring import mark_safe

HERE = pathlib.Path(__file__).resolve().parent
FOLDER = "app/edx_ace/case/test/"


def cases(text):
    for part in re.split(r"^=== ", text, flags=re.M)[1:]:
        head, _, body = part.partition("\n")
        name, options = re.fullmatch(r"(.*?)(?: \[(.*)\])?", head).groups()
        context, language, main = {}, "en", "main.html"
        for option in (options or "").split():
            if "." in option:
                main = option
            else:
                language = option
        if body.startswith("@ "):
            line, _, body = body.partition("\n")
            context = json.loads(line[2:])
        pieces = re.split(r"^--- (.*)\n", body, flags=re.M)
        files = {FOLDER + main: pieces[0]} | dict(zip(pieces[1::2], pieces[2::2]))
        yield name, language, FOLDER + main, context, {file: text.removesuffix("\n") for file, text in files.items()}


def value(json_value):
    if isinstance(json_value, list):
        return [value(item) for item in json_value]
    if not isinstance(json_value, dict):
        return json_value
    if set(json_value) == {"$date"}:
        text = json_value["$date"]
        return datetime.datetime.fromisoformat(text) if "T" in text else datetime.date.fromisoformat(text)
    return {key: value(item) for key, item in json_value.items()}


def compile_catalog(po, mo):
    """A catalogue as gettext's msgfmt makes it."""
    entries, current, key = [], None, None
    for line in po.read_text().splitlines():
        if not line or line.startswith("#"):
            current = None
            continue
        word, quoted = re.fullmatch(r'(?:(msg\S+) )?(".*")', line).groups()
        if word in ("msgctxt", "msgid") and current is None:
            current = {}
            entries.append(current)
        key = word or key
        current[key] = current.get(key, "") + json.loads(quoted)
    messages = {}
    for entry in entries:
        id = (entry["msgctxt"] + "\x04" if "msgctxt" in entry else "") + entry["msgid"]
        id += "\0" + entry["msgid_plural"] if "msgid_plural" in entry else ""
        messages[id] = "\0".join(text for key, text in sorted(entry.items()) if key.startswith("msgstr"))
    ids, table, strings, at = sorted(messages), b"", b"", 28 + 16 * len(messages)
    for text in ids + [messages[id] for id in ids]:
        data = text.encode()
        table += struct.pack("<II", len(data), at + len(strings))
        strings += data + b"\0"
    mo.parent.mkdir(parents=True)
    mo.write_bytes(struct.pack("<7I", 0x950412DE, 0, len(ids), 28, 28 + 8 * len(ids), 0, 0) + table + strings)


def markup():
    """Open edX's interpolate_html, as its documentation describes it."""
    library = Library()

    @library.simple_tag
    def interpolate_html(value, **kwargs):
        return mark_safe(html.escape(value).format(**{key: html.conditional_escape(kwargs[key]) for key in kwargs}))

    return library


def render(language, main, context, files):
    sys.modules.setdefault("markup", type(sys)("markup")).register = markup()
    engine = Engine(
        loaders=[("django.template.loaders.locmem.Loader", files)],
        libraries={"i18n": "django.templatetags.i18n", "static": "django.templatetags.static",
                   "l10n": "django.templatetags.l10n", "django_markup": "markup"},
    )
    with translation.override(language):
        # Text files are not escaped in ACE, which is a documented departure.
        return engine.get_template(main).render(Context(value(context), autoescape=main.endswith(".html")))


def main():
    with tempfile.TemporaryDirectory() as folder:
        for po in HERE.glob("locale/*/LC_MESSAGES/*.po"):
            compile_catalog(po, pathlib.Path(folder, po.relative_to(HERE / "locale")).with_suffix(".mo"))
        settings.configure(USE_I18N=True, USE_TZ=True, TIME_ZONE="UTC", LOCALE_PATHS=[folder], LANGUAGE_CODE="en")
        django.setup()
        wrong, count = [], 0
        for source in sorted(HERE.glob("cases/*.cases")):
            given = {}
            for name, *case in cases(source.read_text()):
                assert name not in given, f"{source.name}: two cases are called {name!r}"
                try:
                    given[name] = render(*case)
                except Exception as error:
                    sys.exit(f"{source.name}: {name}: {error!r}")
            count += len(given)
            golden = HERE / "golden" / f"{source.stem}.json"
            text = json.dumps(given, indent=1, ensure_ascii=False) + "\n"
            if "--check" not in sys.argv:
                golden.write_text(text)
            elif not golden.exists() or golden.read_text() != text:
                wrong.append(golden.name)
        if wrong:
            sys.exit(f"{', '.join(wrong)}: not what Django gives; run {pathlib.Path(__file__).name}")
        print(f"{count} cases, Django {django.get_version()}")


main()
