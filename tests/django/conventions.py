#!/usr/bin/env python3
"""Writes how each language of the installed Django writes dates and numbers into host/ace/src/presentation/i18n/conventions.txt.

    conventions.py            write it anew
    conventions.py --check    exit code 1 where it is not what this Django has

One section for each folder of django/conf/locale, and `[default]` for what a language says nothing about. Lines are a name and a
value with a tab between: formats, then the plural rule, then the translations of the words that filters write. A word's context
stands before it, with a `|` between; plural forms are one line each, numbered.
"""

import gettext
import importlib
import importlib.metadata
import pathlib
import sys

import django
from django.conf import global_settings

HERE = pathlib.Path(__file__).resolve().parent
TABLE = HERE.parents[1] / "host/ace/src/presentation/i18n/conventions.txt"
LOCALES = pathlib.Path(django.__file__).parent / "conf/locale"

FORMATS = [
    "DATE_FORMAT", "DATETIME_FORMAT", "TIME_FORMAT", "SHORT_DATE_FORMAT", "SHORT_DATETIME_FORMAT", "YEAR_MONTH_FORMAT",
    "MONTH_DAY_FORMAT", "DECIMAL_SEPARATOR", "THOUSAND_SEPARATOR", "NUMBER_GROUPING",
]
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
# As the Associated Press shortens them.
MONTHS_AP = ["Jan.", "Feb.", "March", "April", "May", "June", "July", "Aug.", "Sept.", "Oct.", "Nov.", "Dec."]
WORDS = (
    [(None, word) for word in MONTHS]
    + [(None, word[:3].lower()) for word in MONTHS]
    + [("abbrev. month", word) for word in MONTHS_AP]
    + [("alt. month", word) for word in MONTHS]
    + [(None, word) for word in DAYS]
    + [(None, word[:3]) for word in DAYS]
    + [(None, word) for word in ["a.m.", "p.m.", "AM", "PM", "midnight", "noon", "yes,no,maybe", ", "]]
    + [(None, f"%s {unit}") for unit in ["KB", "MB", "GB", "TB", "PB"]]
    + [("String to return when truncating text", "%(truncated_text)s…")]
)
PLURALS = ["%(size)d byte"] + [f"%(num)d {unit}" for unit in ["year", "month", "week", "day", "hour", "minute"]]

HEAD = f"""\
# How languages write dates and numbers, as Django {django.get_version()} has it. Made by tests/django/conventions.py: do not edit.
#
# From django/conf/locale: Copyright (c) Django Software Foundation and individual contributors, under the BSD licence:
#
"""


def licence():
    """Django's own, as its distribution has it."""
    files = importlib.metadata.files("django")
    text = next(file for file in files if file.name == "LICENSE").read_text()
    return "".join(f"# {line}".rstrip() + "\n" for line in text.splitlines())


def section(name, values):
    lines = []
    for key, value in values:
        assert not set("\t\r\n") & set(key + value), f"{name}: {key}"
        lines.append(f"{key}\t{value}\n")
    return f"[{name}]\n" + "".join(lines)


def formats(source):
    found = [(name, getattr(source, name, None)) for name in FORMATS]
    for name, value in found:
        assert value is None or isinstance(value, int if name == "NUMBER_GROUPING" else str), f"{source}: {name}"
    return [(name, str(value)) for name, value in found if value is not None]


def words(locale):
    catalog = gettext.GNUTranslations((LOCALES / locale / "LC_MESSAGES/django.mo").open("rb"))
    # Python's own, after it has read the file: texts by id, and by id and form.
    texts, header = catalog._catalog, dict(catalog.info())
    plurals = [(f"{id}|{form}", texts[id, form]) for id in PLURALS for form in range(10) if texts.get((id, form))]
    if plurals:
        yield "PLURALS", header["plural-forms"]
    for context, id in WORDS:
        text = texts.get(f"{context}\x04{id}" if context else id)
        # What a region says as English does, its language may say otherwise.
        if text and (text != id or "_" in locale):
            yield f"{context}|{id}" if context else id, text
    yield from plurals


def table():
    out = HEAD + licence() + section("default", formats(global_settings))
    for folder in sorted(folder.name for folder in LOCALES.iterdir() if (folder / "LC_MESSAGES").exists()):
        out += section(folder.replace("_", "-").lower(), conventions(folder))
    return out


def conventions(locale):
    # Without a catalogue Django does not look for formats either.
    if not (LOCALES / locale / "LC_MESSAGES/django.mo").exists():
        return []
    try:
        found = formats(importlib.import_module(f"django.conf.locale.{locale}.formats"))
    except ImportError:
        found = []
    return found + list(words(locale))


if "--check" not in sys.argv:
    TABLE.write_text(table())
elif not TABLE.exists() or TABLE.read_text() != table():
    sys.exit(f"{TABLE.name}: not what Django has; run {pathlib.Path(__file__).name}")
